"""Dumps of all times and forms, line by line: a row, or a named reason."""

import bz2
import copy
import datetime
import errno
import gzip
import itertools
import json
import lzma
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crawl import canonical, lines, streams, submissions
from crawl.config import CrawlConfig
from crawl.schema import LINKS, OUTCOMES, SUBMISSIONS, BadInput
from crawl.streams import Part
from pipeline.stage import Account

Factory = pytest.TempPathFactory

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
    account = Account()
    batches = list(submissions.read(Part(str(path)), CrawlConfig(**keys), account))
    assert all(batch.schema == SUBMISSIONS for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()], account.left_out


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_post_becomes_a_row(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", post())
    assert rows == [
        {
            "link_id": canonical.link_id("http://a.com/?u=1&v=2".replace("/?", "/x?")),
            "url_key": "http://a.com/x?u=1&v=2",
            "fetch_url": "http://a.com/x?u=1&v=2",
            "post_id": "abc",
            "crosspost_of": None,
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
        (post(_meta={"removal_type": "deleted"}), "deleted"),
        (post(removed_by_category="author"), "deleted"),
        (post(_meta={"removal_type": "moderator"}), "removed"),
        (post(is_gallery=True, url="https://www.reddit.com/gallery/x"), "gallery"),
        (post(is_video=True), "reddit_media"),
        (post(is_reddit_media_domain=True), "reddit_media"),
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


def test_scores_and_marks_of_odd_types_cost_no_record(tmp_path: Path) -> None:
    rows, left_out = read(
        tmp_path / "x",
        post(id="a", score="12"),
        post(id="b", score="many"),
        post(id="c", _meta="none"),
        post(id="d", score=5.7),
        post(id="e", url="http://a.com/" + "x" * 9000),
    )
    assert sorted((row["post_id"], row["score"]) for row in rows) == [("a", 12), ("c", 7), ("d", 5)]
    assert left_out == {"no_score": 1, "bad_url": 1}


def test_scores_are_not_judged_and_nsfw_can_be_kept(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", post(score=0), post(over_18=True), over_18=True)
    assert len(rows) == 2 and not left_out


def test_a_sample_is_chosen_by_link(tmp_path: Path) -> None:
    lines = [post(id=str(n), url=f"http://a.com/{n % 50}") for n in range(100)]
    rows, left_out = read(tmp_path / "x", *lines, sample=0.5)
    assert len(rows) + left_out["not_sampled"] == 100
    assert 20 < len(rows) < 80
    # The same links for ever: those whose second four bytes are below the share.
    assert all(int.from_bytes(row["link_id"][4:8], "big") < 2**31 for row in rows)
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
    assert [row["fetch_url"] for row in rows] == ["http://a.com/1"]
    assert left_out == {"repeated": 1}


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
    with pytest.raises(RuntimeError, match=r"RS\.zst: ends too early, .*accept_trunc") as raised:
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
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1_000_000)
    monkeypatch.setattr(lines, "BLOCK", 100_000)
    rows, left_out = read(path)
    assert [row["post_id"] for row in rows] == ["a", "b"]
    assert left_out == {"malformed": 1}


def test_a_disk_that_fails_is_no_damaged_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "RS.zst").write_bytes(zstandard.ZstdCompressor().compress(post() * 9))
    monkeypatch.setattr(streams.Pieces, "some", fails)
    with pytest.raises(OSError, match="Input/output") as raised:
        read(tmp_path / "RS.zst")
    assert raised.value.errno == errno.EIO


@pytest.mark.parametrize("content", [b"<html>\n<body>sorry\n", b"\x00\x01\x02", b"\n\n"])
def test_what_is_neither_dump_nor_list_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="neither"):
        read(path)


LINES = st.lists(
    st.sampled_from([post(), post(id="b", url="/r/x"), post(id="c", score=None), b"{}", b"[1]"])
    | st.binary(min_size=1, max_size=40).filter(lambda b: b"\n" not in b and bool(b.strip())),
    max_size=12,
)


@given(LINES)
def test_every_line_is_a_row_or_a_count(tmp_path_factory: Factory, some: list[bytes]) -> None:
    rows, left_out = read(tmp_path_factory.mktemp("dump") / "x", post(id="first"), *some)
    assert len(rows) + left_out.total() == 1 + len(some)


@given(LINES, st.integers(1, 200), st.integers(1, 4))
def test_a_reader_goes_on_where_its_account_stands(
    tmp_path_factory: Factory, some: list[bytes], block: int, taken: int
) -> None:
    path = tmp_path_factory.mktemp("dump") / "x"
    path.write_bytes(b"\n".join([post(id="first"), *some]) + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        patch.setattr(submissions, "BATCH_ROWS", 2)
        whole, account = Account(), Account()
        expected = rows_of(submissions.read(Part(str(path)), CrawlConfig(), whole))
        reader = submissions.read(Part(str(path)), CrawlConfig(), account)
        first = rows_of(itertools.islice(reader, taken))
        kept = copy.deepcopy(account)
        rest = rows_of(submissions.read(Part(str(path)), CrawlConfig(), kept))
    assert first + rest == expected
    assert (kept.left_out, kept.faults, kept.place) == (
        whole.left_out, whole.faults, whole.place
    )  # fmt: skip


def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    path, account = tmp_path / "RS.zst", Account()
    torn = b'{"id": "torn", "url": "htt'
    content = b"\n".join([post(id="1"), torn, post(id="2"), b"<html>", b""])
    path.write_bytes(zstandard.ZstdCompressor().compress(content))
    rows = rows_of(submissions.read(Part(str(path)), CrawlConfig(), account))
    assert [row["post_id"] for row in rows] == ["1", "2"]
    assert account.left_out == {"malformed": 2}
    places = [content.index(line) for line in (torn, b"<html>")]
    assert account.faults == [f"{path}: byte {place:,}: malformed" for place in places]


def test_thousands_of_torn_lines_are_counted_and_a_hundred_are_told(tmp_path: Path) -> None:
    path, account = tmp_path / "x", Account()
    path.write_bytes(b"\n".join([post(), *[b"{torn"] * 5000]))
    rows_of(submissions.read(Part(str(path)), CrawlConfig(), account))
    assert account.left_out == {"malformed": 5000} and len(account.faults) == 100


def test_days_and_subreddits_are_chosen(tmp_path: Path) -> None:
    day = 86400
    path = tmp_path / "x"
    read(
        path,
        post(id="1", created_utc=10 * day - 1, subreddit="News"),
        post(id="2", created_utc=10 * day, subreddit="news"),
        post(id="3", created_utc=11 * day - 1, subreddit="books"),
        post(id="4", created_utc=11 * day, subreddit="books"),
        post(id="5", created_utc=10 * day, subreddit=None),
    )
    only = datetime.date(1970, 1, 11)

    def chosen(**keys: Any) -> tuple[list[str], Counter[str]]:
        rows, left_out = read(path, **keys)
        return sorted(row["post_id"] for row in rows), left_out

    assert chosen(since=only) == (["2", "3", "4", "5"], {"before_since": 1})
    assert chosen(until=only) == (["1", "2", "3", "5"], {"after_until": 1})
    assert chosen(since=only, until=only)[0] == ["2", "3", "5"]
    assert chosen(subreddits=("NEWS",)) == (["1", "2"], {"subreddit": 3})
    assert chosen(refused_subreddits=("news",)) == (["3", "4", "5"], {"subreddit": 2})
    assert chosen(subreddits=("news", "books"), refused_subreddits=("Books",))[0] == ["1", "2"]


def test_a_copy_in_the_same_file_is_counted_and_a_changed_one_is_not_lost(tmp_path: Path) -> None:
    rows, left_out = read(tmp_path / "x", post(), post(), post(score=9), post(), post(id="b"))
    assert [(row["post_id"], row["score"]) for row in rows] == [("abc", 7), ("abc", 9), ("b", 7)]
    assert left_out == {"repeated": 2}


def test_crossposts_name_what_they_show(tmp_path: Path) -> None:
    rows, _ = read(
        tmp_path / "x",
        post(id="x", url="/r/a/comments/1", crosspost_parent="t3_abc", url_overridden_by_dest="http://b.com/"),
    )  # fmt: skip
    assert (rows[0]["fetch_url"], rows[0]["crosspost_of"]) == ("http://b.com/", "abc")


def test_nothing_of_an_author_is_kept(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "x", post(author="somebody", author_fullname="t2_somebody"))
    assert rows and "somebody" not in repr(rows)
    assert not [name for name in [*SUBMISSIONS.names, *LINKS.names] if "author" in name]


def test_a_dump_of_comments_is_told_for_what_it_is(tmp_path: Path) -> None:
    comment = {"id": "c", "body": "first", "link_id": "t3_1", "parent_id": "t3_1", "score": 3}
    with pytest.raises(BadInput, match=r"x: holds comments; links are taken from submissions"):
        read(tmp_path / "x", json.dumps(comment).encode())


def test_an_address_that_only_sends_on_is_its_target(tmp_path: Path) -> None:
    wrapped = "http://www.google.com/url?sa=t&amp;url=https%3A%2F%2Fa.com%2Fx"
    rows, _ = read(tmp_path / "x", post(url=wrapped))
    assert rows[0]["fetch_url"] == "https://a.com/x" and rows[0]["url_key"] == "http://a.com/x"


REAL = {
    "RS_v2_2005-06.xz": (103, 103, {}),
    "RS_v2_2005-07.xz": (1079, 1079, {}),
    "RS_top_2013.zst": (38989, 32801, {"self": 6118, "over_18": 67, "bad_url": 3}),
    "RS_wcxb_made.zst": (1691, 1349, {"self": 300, "over_18": 10, "no_score": 20, "bad_url": 12}),
    "mixed_era_submissions.ndjson": (
        31, 14, {"self": 12, "over_18": 2, "deleted": 2, "reddit_media": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_dumps(data: Path, name: str) -> None:
    lines, good, reasons = REAL[name]
    rows, left_out = read(data / "reddit" / name)
    assert (len(rows), dict(left_out)) == (good, reasons)
    assert len(rows) + left_out.total() == lines


@pytest.mark.parametrize(("name", "good"), [("RS_v2_2005-06.xz", 83), ("RS_v2_2005-07.xz", 757)])
def test_genuine_dumps_have_so_many_links_of_karma(data: Path, name: str, good: int) -> None:
    rows, _ = read(data / "reddit" / name)
    assert sum(row["score"] >= 3 for row in rows) == good
    assert len({row["fetch_url"] for row in rows if row["score"] >= 3}) == good


def test_link_posts_of_2013(data: Path) -> None:
    rows, left_out = read(data / "reddit" / "RS_top_2013.zst", over_18=True)
    assert len(rows) + left_out["bad_url"] == 32871


def test_a_line_without_an_end_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    monkeypatch.setattr(lines, "BLOCK", 2**16)
    endless = b'{"id": "' + b"x" * 2**22
    rows, left_out = read(tmp_path / "x", post(id="1"), endless, post(id="2"))
    assert [row["post_id"] for row in rows] == ["1", "2"]
    assert left_out == {"malformed": 1}
