"""Dumps of all times and forms, line by line: a row, or a named reason."""

import bz2
import datetime
import errno
import gzip
import json
import lzma
import random
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawl import streams, submissions, url
from crawl.config import CrawlConfig
from crawl.schema import OUTCOMES, SUBMISSIONS, BadInput

POST = {
    "id": "abc",
    "url": "http://a.com/x?u=1&amp;v=2",
    "score": 7,
    "created_utc": 1119552233,
    "subreddit": "news",
    "is_self": False,
    "over_18": False,
}


def post(**changed: object) -> bytes:
    return json.dumps({**POST, **changed}).encode()


def read(path: Path, *lines: bytes, **keys: Any) -> tuple[list[dict[str, Any]], Counter[str]]:
    if lines:
        path.write_bytes(b"\n".join(lines) + b"\n")
    left_out: Counter[str] = Counter()
    batches = list(submissions.read(str(path), CrawlConfig(**keys), left_out))
    assert all(batch.schema == SUBMISSIONS for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()], left_out


def test_a_post_becomes_a_row(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", post())
    assert rows == [
        {
            "link_id": url.link_id("http://a.com/?u=1&v=2".replace("/?", "/x?")),
            "url_key": "http://a.com/x?u=1&v=2",
            "fetch_url": "http://a.com/x?u=1&v=2",
            "host": "a.com",
            "post_id": "abc",
            "score": 7,
            "day": datetime.date(2005, 6, 23),
            "subreddit": "news",
        }
    ]
    assert not left_out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "torn", "url": "http', "malformed"),
        (b"<html>not JSON</html>", "malformed"),
        (b'["a list"]', "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (post(id=None), "malformed"),
        (post(url=["x"]), "malformed"),
        (b'{"id": "deep", "x": ' + b"[" * 100_000, "malformed"),
        (post(promoted=True, subreddit=None), "promoted"),
        (post(is_self=True), "self"),
        (post(removed_by_category="moderator"), "removed"),
        (post(_meta={"removal_type": "deleted"}), "removed"),
        (post(over_18=True), "over_18"),
        (post(score=None), "no_score"),
        (post(url=None), "no_url"),
        (post(url=""), "no_url"),
        (post(url="/r/pics/comments/1/x", crosspost_parent="t3_1"), "relative_url"),
        (post(url="ftp://a.com/x"), "bad_url"),
        (post(created_utc=None), "no_date"),
        (post(created_utc="soon"), "no_date"),
        (post(created_utc=1e300), "no_date"),
        (post(created_utc=10**400), "no_date"),
        (post(created_utc=1514764800), "after_until"),
    ],
)
def test_what_is_left_out_is_counted_and_costs_no_neighbour(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    until = datetime.date(2017, 12, 31)
    rows, left_out = read(tmp_path / "x", post(id="1"), line, b"", post(id="2"), until=until)
    assert [row["post_id"] for row in rows] == ["1", "2"]
    assert left_out == {reason: 1}
    assert reason in OUTCOMES["submissions"]


@pytest.mark.parametrize("created", [1514764799, 1514764799.0, "1514764799", "1514764799.0"])
def test_dates_of_every_type_are_read(tmp_path: Path, created: object) -> None:
    until = datetime.date(2017, 12, 31)
    rows, _ = read(tmp_path / "x", post(created_utc=created), until=until)
    assert rows[0]["day"] == until


def test_loosely_typed_fields(tmp_path: Path) -> None:
    rows, left_out = read(
        tmp_path / "x",
        post(id="t3_a", score=5.0),
        post(id="b", score=2**40),
        post(id="c", url="/r/x", url_overridden_by_dest="http://b.com/"),
        post(id="d", subreddit=None, over_18=None, is_self=None, extra={"deep": [1]}),
        post(id="e", score=-(2**40)),
        post(id="f", url=None, url_overridden_by_dest="http://b.com/"),
    )
    assert [(row["post_id"], row["score"]) for row in rows] == [
        ("a", 5), ("b", 2**31 - 1), ("c", 7), ("d", 7), ("e", -(2**31)), ("f", 7)
    ]  # fmt: skip
    assert rows[2]["fetch_url"] == rows[5]["fetch_url"] == "http://b.com/"
    assert not left_out


def test_scores_are_not_judged_and_nsfw_can_be_kept(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", post(score=0), post(over_18=True), over_18=True)
    assert len(rows) == 2 and not left_out


def test_a_sample_is_chosen_by_link(tmp_path: Path) -> None:
    lines = [post(id=str(n), url=f"http://a.com/{n % 50}") for n in range(100)]
    rows, left_out = read(tmp_path / "x", *lines, sample=0.5)
    assert len(rows) + left_out["not_sampled"] == 100
    assert 20 < len(rows) < 80
    assert set(Counter(row["link_id"] for row in rows).values()) == {2}
    wider, _ = read(tmp_path / "x", sample=0.75)
    assert {row["link_id"] for row in rows} < {row["link_id"] for row in wider}


def test_a_list_of_urls_vouches_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "urls.bz2"
    path.write_bytes(bz2.compress(b"http://a.com/1\nnot one\n\nhttps://www.a.com/1/\n"))
    rows, left_out = read(path)
    assert [row["fetch_url"] for row in rows] == ["http://a.com/1", "https://www.a.com/1/"]
    assert rows[0]["post_id"] == rows[1]["post_id"] and rows[0]["score"] is None
    assert left_out == {"bad_url": 1}


def test_a_torn_first_line_does_not_make_a_dump_a_list(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", b'http": "torn"}', post())
    assert len(rows) == 1 and left_out == {"malformed": 1}


@pytest.mark.parametrize("line", [b"http://a.com/1", post(url="http://a.com/1")])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, line: bytes) -> None:
    rows, left_out = read(tmp_path / "x", b"\xef\xbb\xbf" + line, line)
    assert [row["fetch_url"] for row in rows] == ["http://a.com/1"] * 2
    assert not left_out


def test_a_brace_does_not_make_a_list_a_dump(tmp_path: Path) -> None:
    lines = [b"http://a.com/{x}", b"{not json", b"http://a.com/2", b"{}"]
    rows, left_out = read(tmp_path / "x", *lines)
    assert [row["fetch_url"] for row in rows] == ["http://a.com/%7Bx%7D", "http://a.com/2"]
    assert left_out == {"bad_url": 2}


@pytest.mark.parametrize(
    "lines",
    [
        (b"{damaged", b"{as well"),
        (b'{"a": 1}',),
        (b"\x00\x01", b"{\xff\xfe", b"\x02"),
        (b'{"id": 1}',) * 200,
    ],
)
def test_a_file_without_a_single_submission_is_no_dump(
    tmp_path: Path, lines: tuple[bytes, ...]
) -> None:
    with pytest.raises(BadInput, match=r"x: is no dump: none of its lines") as raised:
        read(tmp_path / "x", *lines)
    assert "\n" not in str(raised.value)
    rows, left_out = read(tmp_path / "x", *lines, post(is_self=True))
    assert not rows and left_out == {"malformed": len(lines), "self": 1}


def test_a_truncated_dump_is_refused_unless_accepted(tmp_path: Path) -> None:
    lines = b"\n".join(post(id=str(n), url=f"http://a.com/{n}") for n in range(30000))
    path = tmp_path / "RS.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(lines)[:-100])
    with pytest.raises(BadInput, match=r"RS\.zst: ends too early; .*accept_truncated") as raised:
        read(path)
    assert "\n" not in str(raised.value)
    rows, left_out = read(path, accept_truncated=True)
    assert len(rows) > 10000
    assert left_out["truncated"] == 1 and left_out["malformed"] <= 1


@pytest.mark.parametrize("share", [0.3, 0.5, 0.999])
@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zst"])
def test_a_truncated_dump_gives_every_whole_line(tmp_path: Path, name: str, share: float) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    unpack: dict[str, Callable[[], Any]] = {
        "gz": lambda: zlib.decompressobj(wbits=31),
        "bz2": bz2.BZ2Decompressor,
        "xz": lzma.LZMADecompressor,
        "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
    }
    chance = random.Random(1)
    lines = (post(id=f"{n}x{chance.random()}", url=f"http://a.com/{n}") for n in range(30000))
    whole = pack[name](b"\n".join(lines))
    coded = whole[: int(share * len(whole))]
    path = tmp_path / f"RS.{name}"
    path.write_bytes(coded)
    rows, left_out = read(path, accept_truncated=True)
    assert len(rows) == unpack[name]().decompress(coded).count(b"\n") > 0
    assert left_out["truncated"] == 1


def test_a_line_of_many_pieces_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = post(id="long", title="x" * 3_000_000)
    path = tmp_path / "RS.gz"
    path.write_bytes(gzip.compress(b"\n".join([post(id="a"), long, post(id="b")])))
    assert [row["post_id"] for row in read(path)[0]] == ["a", "long", "b"]
    monkeypatch.setattr(submissions, "MAX_LINE_BYTES", 1_000_000)
    rows, left_out = read(path)
    assert [row["post_id"] for row in rows] == ["a", "b"]
    assert set(left_out) == {"malformed"} and left_out["malformed"] >= 3


def test_a_disk_that_fails_is_no_damaged_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "RS.zst").write_bytes(zstandard.ZstdCompressor().compress(post() * 9))
    monkeypatch.setattr(streams.Frames, "readinto", fails)
    with pytest.raises(OSError, match="Input/output") as raised:
        read(tmp_path / "RS.zst")
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("content", [b"<html>\n<body>sorry\n", b"\x00\x01\x02", b"\n\n"])
def test_what_is_neither_dump_nor_list_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="neither"):
        read(path)


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b and b.strip())))
def test_every_line_is_a_row_or_a_count(lines: list[bytes]) -> None:
    left_out: Counter[str] = Counter()
    config = CrawlConfig()
    lines = [post(), *lines]
    rows = submissions._rows(submissions._from_json, iter(lines), config, left_out)
    assert len(list(rows)) + left_out.total() == len(lines)


@pytest.mark.parametrize(
    ("name", "lines", "good"),
    [("RS_v2_2005-06.xz", 103, 83), ("RS_v2_2005-07.xz", 1079, 757)],
)
def test_genuine_dumps(data: Path, name: str, lines: int, good: int) -> None:
    rows, left_out = read(data / "reddit" / name)
    assert len(rows) + left_out.total() == lines
    assert sum(row["score"] >= 3 for row in rows) == good


def test_records_of_all_eras(data: Path) -> None:
    rows, left_out = read(data / "reddit" / "mixed_era_submissions.ndjson")
    assert len(rows) == 15
    assert left_out == {"self": 12, "over_18": 2, "removed": 2}


def test_the_made_dump(data: Path) -> None:
    rows, left_out = read(data / "reddit" / "RS_wcxb_made.zst", over_18=True)
    assert len(rows) + left_out.total() == 1691
    assert left_out == {"self": 300, "no_score": 20, "bad_url": 12}


def test_a_line_without_an_end_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "MAX_LINE_BYTES", 2**20)
    endless = b'{"id": "' + b"x" * 2**22
    rows, left_out = read(tmp_path / "x", post(id="1"), endless, post(id="2"))
    assert [row["post_id"] for row in rows] == ["1", "2"]
    assert left_out["malformed"] > 1
