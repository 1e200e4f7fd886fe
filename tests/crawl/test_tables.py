"""CSV and Parquet: columns by name, rows by number, and on from where a reader stopped."""

import bz2
import csv
import datetime
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import dumps, tables
from crawl.posts import Post, Posts
from crawl.schema import BadInput
from crawl.streams import Part
from pipeline.stage import Account

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "csv": bytes,
    "csv.gz": gzip.compress,
    "csv.bz2": bz2.compress,
    "csv.xz": lzma.compress,
    "csv.zst": zstandard.ZstdCompressor().compress,
}
BAD = object()
"""Stands for a row that is too short or too long."""


def read(path: Path, content: bytes | pa.Table, account: Account | None = None) -> list[Posts]:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content)
    account = account or Account()
    return list(dumps.read(Part(str(path)), account, accept_truncated=False))


def posts(found: Iterable[Posts]) -> list[Post]:
    return [post for some in found for post in some.rows]


def values(found: Iterable[Posts], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(post, name) for name in names) for post in posts(found)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "x"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sign", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_are_known_by_their_names(tmp_path: Path, form: str, sign: str, end: str) -> None:
    lines = ["Title|URL|SCORE|Id|crosspost_parent|Over_18", "x|http://a.com/|3|t3_a|t3_b|True"]
    content = end.join([*lines, "y|http://b.com/| 4 |b||false"]).replace("|", sign).encode()
    account = Account()
    found = read(tmp_path / f"x.{form}", FORMS[form](content), account)
    assert values(found, "url", "score", "id", "crosspost_parent", "over_18") == [
        ("http://a.com/", 3, "t3_a", "t3_b", True),
        ("http://b.com/", 4, "b", None, False),
    ]
    assert all(some.scored and not some.dated for some in found)
    assert not account.left_out and account.place == 3
    assert account.bytes_read == (tmp_path / f"x.{form}").stat().st_size


def test_scores_and_dates_are_read_as_text(path: Path) -> None:
    rows = ["3,1370000000", "3.0,1370000000.0", '"4"," 1370000000 "', "-2,1e9", ",", "many,soon"]
    content = "url,score,created_utc\n" + "".join(f"http://a.com/,{row}\n" for row in rows)
    assert values(read(path, content.encode()), "score", "created_utc") == [
        *[(3, 1370000000)] * 2,
        (4, 1370000000),
        (-2, 10**9),
        *[(None, None)] * 2,
    ]


@pytest.mark.parametrize(
    ("said", "flag"),
    [
        *(("True", True), ("true", True), ("1", True), ("t", True), ("yes", True), ("1.0", True)),
        *(("False", False), ("FALSE", False), ("0", False), ("f", False), ("no", False)),
        *(("", False), ("null", False), ("None", False), ("NaN", False), ("0.0", False)),
    ],
)
def test_flags_are_read_as_text(path: Path, said: str, flag: bool) -> None:
    found = read(path, f"url,is_self,over_18\nhttp://a.com/,{said},x\n".encode())
    assert values(found, "is_self", "over_18") == [(flag, True)]


def test_a_table_of_urls_alone_is_neither_scored_nor_dated(path: Path) -> None:
    found = read(path, b"url\nhttp://a.com/\nhttp://a.com/\n")
    assert values(found, "id", "url", "score") == [("", "http://a.com/", None)] * 2
    assert not any(some.scored or some.dated for some in found)


def test_rows_without_an_id_are_one_post_where_they_say_the_same(path: Path) -> None:
    rows = [b"http://a.com/,3,1", b"http://a.com/,4,1", b"http://a.com/,3,2", b"http://a.com/,3,1"]
    found = posts(read(path, b"url,score,created_utc\n" + b"\n".join(rows)))
    one, *others, again = [post.id for post in found]
    assert one == again and len({one, *others}) == 3 and all(others)


def test_what_is_no_utf8_costs_no_neighbour(path: Path) -> None:
    found = read(path, b"url,title\nhttp://a.com/\xff,\xe9\nhttp://b.com/,x\n")
    assert values(found, "url") == [("http://a.com/\ufffd",), ("http://b.com/",)]


def test_a_mark_of_utf8_is_no_part_of_a_name(path: Path) -> None:
    assert values(read(path, b"\xef\xbb\xbfurl,score\nhttp://a.com/,3\n"), "score") == [(3,)]


TEXT = st.text(st.sampled_from('ab,"\n\u00e9 ;'), max_size=9)
ROWS = st.lists(st.one_of(TEXT, TEXT, TEXT, st.just(BAD)), max_size=40)


def table(rows: list[Any]) -> tuple[bytes, list[tuple[str]], list[int]]:
    """A CSV file, the URLs of its good rows, and the numbers of the others."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["url", "title"])
    for number, title in enumerate(rows):
        short = ["short"] if number % 2 else [1, 2, 3]
        writer.writerow(short if title is BAD else [f"http://a.com/{number}", title])
    good = [(f"http://a.com/{number}",) for number, title in enumerate(rows) if title is not BAD]
    return text.getvalue().encode(), good, [n for n, title in enumerate(rows, 2) if title is BAD]


@given(ROWS, st.sampled_from([64, 100, 1000]))
@example([BAD, BAD], 64)
@example(["a\nb", BAD, "c"] * 9 + [BAD], 64)
def test_a_ragged_row_is_a_fault_and_costs_no_neighbour(
    path: Path, rows: list[Any], block: int
) -> None:
    content, good, bad = table(rows)
    account = Account()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK", block)
        assert values(read(path, content, account), "url") == good
    assert account.faults == [f"{path}: row {number}: malformed" for number in bad]
    assert account.left_out == ({"malformed": len(bad)} if bad else {})


@given(ROWS, st.integers(0, 9))
@example(["x", BAD] * 20, 1)
@example([BAD] * 4 + ["x"] * 9 + [BAD] * 3 + ["x"], 0)
def test_a_reader_goes_on_where_it_stopped(path: Path, rows: list[Any], stop: int) -> None:
    content, good, bad = table(rows)
    path.write_bytes(content)
    account, found = Account(), list[Posts]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BLOCK", 64)
        reader = dumps.read(Part(str(path)), account, accept_truncated=False)
        for some in reader:
            found.append(some)
            if len(found) > stop:
                break
        kept = Account(account.left_out.copy(), [*account.faults], account.place)
        reader.close()  # type: ignore[attr-defined]
        again = list(dumps.read(Part(str(path)), kept, accept_truncated=False))
    assert values([*found, *again], "url") == good
    assert kept.faults == [f"{path}: row {number}: malformed" for number in bad]
    assert sum(kept.left_out.values()) == len(bad)


def test_a_row_longer_than_a_block_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", 64)
    with pytest.raises(BadInput, match=r"^.*x: cannot be read as a table: .*$"):
        read(path, b"url,x\nhttp://a.com/," + b"y" * 200 + b"\nhttp://b.com/,z\n")


def test_a_file_may_begin_with_an_empty_line(path: Path) -> None:
    assert values(read(path, b"\nurl,score\nhttp://a.com/,3\n"), "url") == [("http://a.com/",)]


DAY = datetime.datetime(2013, 1, 1)


def test_parquet_of_every_type_is_read(path: Path) -> None:
    when = [DAY, None, DAY.replace(tzinfo=datetime.UTC)]
    found = read(
        path,
        pa.table(
            {
                "URL": pa.array(["http://a.com/", None, ""]).dictionary_encode(),
                "score": pa.array([1, None, 2**40]),
                "created_utc": pa.array(when, pa.timestamp("us")),
                "over_18": pa.array([True, None, False]),
                "id": pa.array([7, 8, 9]),
                "other": pa.array([[1], [], None]),
            }
        ),
    )
    assert values(found, "id", "url", "score", "created_utc", "over_18") == [
        ("7", "http://a.com/", 1, 1356998400, True),
        ("8", None, None, None, False),
        ("9", None, 2**40, 1356998400, False),
    ]
    assert all(some.scored and some.dated for some in found)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.string(), pa.decimal128(12, 1)])
def test_parquet_s_numbers_of_every_type_are_read(path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["1.0", None, "-2.5"], pa.string())
    content = pa.table({"url": ["a", "b", "c"], "score": texts.cast(kind)})
    assert values(read(path, content), "score") == [(1,), (None,), (-2.5,)]


def test_a_row_without_an_id_has_an_empty_one(path: Path) -> None:
    found = read(path, pa.table({"url": ["a", "b"], "id": pa.array(["x", None])}))
    assert values(found, "id") == [("x",), ("",)]


def test_parquet_without_urls_is_told(path: Path) -> None:
    with pytest.raises(BadInput, match=r"^.*x: has no column named url$"):
        read(path, pa.table({"link": ["http://a.com/"]}))


@given(st.integers(4, 400), st.integers(1, 12))
def test_parquet_that_is_damaged_is_read_or_told(path: Path, place: int, size: int) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": ["http://a.com/"] * 9, "score": [3] * 9}), buffer)
    content = bytearray(buffer.getvalue())
    content[place : place + size] = b"\xff" * min(size, max(0, len(content) - place))
    try:
        read(path, bytes(content))
    except BadInput as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_parquet_goes_on_where_it_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 4)
    content = pa.table({"url": [str(number) for number in range(11)]})
    first = read(path, content)
    assert [len(some.rows) for some in first] == [4, 4, 3]
    for number, place in enumerate([0, 4, 8, 11]):
        account = Account(place=place)
        assert values(read(path, content, account), "url") == values(first[number:], "url")
        assert account.place == 11


@pytest.mark.parametrize("cut", [9, 2000])
def test_a_table_that_breaks_off_gives_every_whole_row(tmp_path: Path, cut: int) -> None:
    rows = "".join(f"http://a.com/{n},{n * n % 1009}\n" for n in range(20000))
    packed = gzip.compress(f"url,score\n{rows}".encode())[:-cut]
    whole = zlib.decompressobj(wbits=31).decompress(packed).count(b"\n") - 1
    path, account = tmp_path / "x.csv.gz", Account()
    path.write_bytes(packed)
    found = list(dumps.read(Part(str(path)), account, accept_truncated=True))
    assert sum(len(one.rows) for one in found) == whole > 15000
    assert account.left_out == {"truncated": 1}
    with pytest.raises(RuntimeError, match=r"x\.csv\.gz: ends too early, after [\d,]+ bytes"):
        list(dumps.read(Part(str(path)), Account(), accept_truncated=False))


@pytest.mark.parametrize("said", ["2013-01-02", "2013-01-02T00:00:01", "2013-01-02T01:00:00+01:00"])
def test_dates_as_text_are_moments(tmp_path: Path, said: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"url,score,created_utc\nhttp://a.com/,3,{said}\n")
    (found,) = dumps.read(Part(str(path)), Account(), accept_truncated=False)
    assert 1357084800 <= found.rows[0].created_utc < 1357084802  # type: ignore[operator]


def test_dates_of_parquet_are_moments(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    day = datetime.date(2013, 1, 2)
    rows = {"url": ["http://a.com/"], "score": [3], "created_utc": [day]}
    pq.write_table(pa.table(rows), path)
    (found,) = dumps.read(Part(str(path)), Account(), accept_truncated=False)
    assert found.rows[0].created_utc == 1357084800


@pytest.mark.parametrize(
    "content, words",
    [
        (b"http://a.com/1,5\nhttp://a.com/2,-7\nhttp://b.com/3,9\n", "a table without na"),
        (b"http://a.com/1\t5\n" * 3, "a table without names"),
        ("url,score\nhttp://a.com/,3\n".encode("utf-16"), "is UTF-16"),
    ],
)  # fmt: skip
def test_what_looks_like_another_file_is_not_read_as_urls(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        list(dumps.read(Part(str(path)), Account(), accept_truncated=False))


def test_a_line_of_a_list_with_a_control_inside_is_a_fault(tmp_path: Path) -> None:
    path, account = tmp_path / "x", Account()
    path.write_bytes(b"http://a.com/1\nhttp://a.com/2\t5\r\nhttp://a.com/3\r\n")
    (found,) = dumps.read(Part(str(path)), account, accept_truncated=False)
    assert [post.url for post in found.rows] == ["http://a.com/1", "http://a.com/3"]
    assert account.faults == [f"{path}: byte 15: malformed"]
