"""Archives are replayed into the ledger: by key, once, whatever the order."""

import gzip
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from crawl import (
    archives,
    canonical,
    links,
    observations,
    pages,
    selection,
    submissions,
    url,
    warc,
)
from crawl.config import CrawlConfig
from crawl.schema import VOLATILE, BadInput
from crawl.streams import Part
from pipeline.stage import Account
from tests import foreign, web

CONFIG = CrawlConfig(live=False)
NO_LINKS = selection.LINKS.empty_table()


def archive(path: Path, *captures: tuple[str, str, int, bytes]) -> str:
    with path.open("wb") as file:
        for target, date, status, body in captures:
            headers = (("Content-Type", "text/html"),)
            request = warc.Request("GET / HTTP/1.1", ())
            answer = warc.Answer(status, "OK", headers, body)
            foreign.write(file, target, date, answer, request=request)
    return str(path)


def replay(folder: Path, path: str, *addresses: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    archives.replay(path, [web.links_to(*addresses)], str(folder), CONFIG, counts)
    return counts


A16, A17 = "2016-01-01T00:00:00Z", "2017-01-01T00:00:00Z"


def test_captures_are_found_by_key_and_copied(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x.warc.gz",
        ("https://www.a.com/x/?utm_source=q", A16, 200, b"<p>archived"),
        ("http://a.com/gone", A16, 404, b"no"),
        ("http://a.com/other", A16, 200, b"<p>nobody asked"),
        ("http://a.com/pdf", A16, 200, b"%PDF-1.4"),
        ("http://a.com/when", "yesterday", 200, b"<p>x"),
    )
    asked = [f"http://a.com/{name}" for name in ("x", "gone", "pdf", "when")]
    counts = replay(tmp_path / "ledger", path, *asked)
    assert counts == {"not_response": 5, "copied": 2, "not_200": 1, "no_link": 1, "unreadable": 1}
    (batch,) = pages.fetch([web.links_to(*asked)], str(tmp_path / "ledger"), CONFIG)
    found = {row["url"]: row for row in batch.to_pylist()}
    row = found["http://a.com/x"]
    assert (row["outcome"], row["source"], row["status"]) == ("ok", "archive", 200)
    assert row["final_url"] == "https://www.a.com/x/?utm_source=q"
    assert row["fetched_at"].isoformat() == "2016-01-01T00:00:00+00:00"
    place = warc.Place(row["warc_offset"], row["warc_length"])
    assert warc.read(tmp_path / "ledger" / row["warc_file"], place).body == b"<p>archived"
    (copied,) = [
        record.date
        for record in warc.records(str(tmp_path / "ledger" / row["warc_file"]), 10**6)
        if record.target.startswith("https") and record.kind == "response"
    ]
    assert copied == "2016-01-01T00:00:00.000Z"
    assert found["http://a.com/pdf"]["outcome"] == "not_html"
    assert found["http://a.com/gone"]["outcome"] == "not_archived"


def test_again_doubles_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.warc.gz", ("http://a.com/", A16, 200, b"<p>x"))
    assert replay(tmp_path / "ledger", path, "http://a.com/")["copied"] == 1
    counts = replay(tmp_path / "ledger", path, "http://a.com/")
    assert counts == {"not_response": 1, "already": 1}
    assert len(observations.read(tmp_path / "ledger")) == 1
    # a link that came later is still found
    assert replay(tmp_path / "ledger", path, "http://b.com/")["no_link"] == 1


def test_the_order_of_archives_does_not_matter(tmp_path: Path) -> None:
    one = archive(tmp_path / "1.warc.gz", ("http://a.com/", A17, 200, b"<p>late"))
    two = archive(tmp_path / "2.warc.gz", ("http://a.com", A16, 200, b"<p>early"))
    digests = []
    for name, order in (("x", (one, two)), ("y", (two, one))):
        for path in order:
            replay(tmp_path / name, path, "http://a.com/")
        (batch,) = pages.fetch([web.links_to("http://a.com/")], str(tmp_path / name), CONFIG)
        digests.append(batch.column("digest").to_pylist())
    assert digests == [[warc.digest(b"<p>early")]] * 2


def test_links_that_are_not_kept_are_not_looked_for(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.warc.gz", ("http://a.com/", A16, 200, b"<p>x"))
    counts: Counter[str] = Counter()
    batch = web.links_to("http://a.com/", outcome="media")
    archives.replay(path, [batch], str(tmp_path / "ledger"), CONFIG, counts)
    assert counts["no_link"] == 1


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_archives_of_one_stream_or_many(tmp_path: Path, frames: int) -> None:
    plain = tmp_path / "x.warc.gz"
    bodies = [b"<p>" + random.Random(n).randbytes(30_000) for n in range(30)]
    archive(plain, *((f"http://a.com/{n}", A16, 200, body) for n, body in enumerate(bodies)))
    data = gzip.decompress(plain.read_bytes())
    size = -(-len(data) // frames)
    packer = zstandard.ZstdCompressor()
    path = tmp_path / "x.warc.zst"
    path.write_bytes(
        b"".join(packer.compress(data[n * size : (n + 1) * size]) for n in range(frames))
    )
    assert replay(tmp_path / "ledger", str(path), "http://a.com/1")["copied"] == 1
    path.write_bytes(path.read_bytes()[:-5])
    damaged = replay(tmp_path / "other", str(path), "http://a.com/1")
    assert damaged["unreadable"] == 1


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.warc").write_bytes(b"<html>no archive")
    for name in ("none.warc.gz", "x.warc"):
        with pytest.raises(BadInput, match=name):
            replay(tmp_path / "ledger", str(tmp_path / name), "http://a.com/")


def test_the_real_pages(data: Path, tmp_path: Path) -> None:
    followed = ("reddit.com",)  # two of the 966 are discussions there
    config = CrawlConfig(live=False, min_karma=1, over_18=True, followed_domains=followed)
    posts = submissions.read(Part(str(data / "reddit" / "RS_wcxb_made.zst")), config, Account())
    kept = list(links.merge(posts, config))
    counts: Counter[str] = Counter()
    path = str(data / "web" / "wcxb-dev.warc.zst")
    archives.replay(path, kept, str(tmp_path), config, counts)
    assert counts == {"copied": 966}
    found = [row for batch in pages.fetch(kept, str(tmp_path), config) for row in batch.to_pylist()]
    outcomes = Counter(row["outcome"] for row in found)
    # seven say themselves that they are not to be indexed
    assert (outcomes["ok"], outcomes["opted_out"]) == (959, 7)
    links_kept = sum(batch.column("outcome").to_pylist().count("kept") for batch in kept)
    assert len(found) == links_kept == outcomes.total()
    (first,) = [row for row in found if row is found[0]]
    assert first["fetched_at"].year == 2026


ODD = {
    "clipped.warc.gz": {"unreadable": 1},
    "clueweb-quirk.warc.gz": {"not_response": 1, "copied": 29},
    "example-bad-non-chunked.warc.gz": {"not_response": 4, "revisit": 1, "copied": 1},
    "example-bad.warc.gz.bad": {"not_response": 3, "revisit": 1, "not_200": 1, "copied": 1},
    "example-digest.warc": {"not_response": 4},
    "example-iana.org-chunked.warc": {"not_response": 2, "copied": 1},
    "example-resource.warc.gz": {"not_response": 3},
    "example-space-in-target-uri.warc.gz": {"not_response": 2},
    "example-trunc.warc": {"not_response": 3, "unreadable": 1},
    "example-wget-bad-target-uri.warc.gz": {"not_response": 5, "copied": 1},
    "example-wrong-chunks.warc.gz": {"not_response": 1, "copied": 1},
    "example.warc": {"not_response": 4, "copied": 2},
    "example.warc.gz": {"not_response": 4, "copied": 2},
    "warcfile.warc.gz": {"not_response": 34, "copied": 16},
}


@pytest.mark.parametrize("name", ODD)
def test_foreign_and_broken_archives_give_what_they_hold(
    data: Path, tmp_path: Path, name: str
) -> None:
    path = str(data / "warc" / name)
    named = [url.fetch_url(record.target) for record in warc.records(path, 10**7)]
    pages_in_it = {canonical.url_key(one): one for one in named if one}
    counts = replay(tmp_path, path, *pages_in_it.values())
    assert counts == ODD[name]
    assert len(observations.read(tmp_path)) == counts["copied"]


def test_every_odd_archive_at_hand_is_tried(data: Path) -> None:
    assert {path.name for path in (data / "warc").iterdir()} == set(ODD)


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        ("2008-10-294T05:21:46-0700", "2008-10-20T12:21:46"),
        ("2009-03-65T00:00:00Z", "2009-03-06T00:00:00"),
        ("2009-03-31T00:00:00Z", "2009-03-31T00:00:00"),
        ("2016-02-29T01:02:03.4567Z", "2016-02-29T01:02:03.456000"),
        ("2009-04-65T00:00:00Z", None),
        ("2009-12-366T00:00:00Z", None),
        ("2009-02-31T00:00:00Z", None),
    ],
)
def test_a_day_of_the_year_is_read_where_its_month_agrees(
    tmp_path: Path, date: str, moment: str | None
) -> None:
    path = archive(tmp_path / "x.warc.gz", ("http://a.com/", date, 200, b"<p>x"))
    counts = replay(tmp_path / "ledger", path, "http://a.com/")
    assert counts["copied" if moment else "unreadable"] == 1
    dates = observations.read(tmp_path / "ledger")["fetched_at"].to_pylist()
    assert [day.isoformat() for day in dates] == [f"{one}+00:00" for one in [moment] if one]


def page_of(folder: Path, address: str) -> dict[str, Any]:
    (batch,) = pages.fetch([web.links_to(address)], str(folder), CONFIG)
    (row,) = batch.to_pylist()
    return {name: value for name, value in row.items() if name not in VOLATILE["pages"]}


@pytest.mark.parametrize("difference", ["address", "type", "coding"])
def test_neither_order_nor_parallelism_chooses_among_captures_of_one_second(
    tmp_path: Path, difference: str
) -> None:
    paths = []
    for n in range(2):
        address = ("http://a.com/", "https://www.a.com/")[n if difference == "address" else 0]
        kind = ("text/html", "text/html; charset=utf-8")[n if difference == "type" else 0]
        headers = [("Content-Type", kind)]
        if difference == "coding" and n:
            headers.append(("Content-Encoding", "identity"))
        path = tmp_path / f"{n}.warc.gz"
        with path.open("wb") as file:
            foreign.write(file, address, A16, warc.Answer(200, "OK", tuple(headers), b"<p>x"))
        paths.append(str(path))
    found, codings = [], []
    for name, order in (("x", paths), ("y", paths[::-1])):
        for path in order:
            assert replay(tmp_path / name, path, "http://a.com/")["copied"] == 1
            assert replay(tmp_path / name, path, "http://a.com/")["already"] == 1
        found.append(page_of(tmp_path / name, "http://a.com/"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda path: replay(tmp_path / "z", path, "http://a.com/"), paths))
    found.append(page_of(tmp_path / "z", "http://a.com/"))
    assert found[0] == found[1] == found[2]
    for name in "xyz":
        chosen = selection.select(observations.read(tmp_path / name), NO_LINKS)
        codings.append(chosen["content_encoding"].to_pylist())
    assert codings[0] == codings[1] == codings[2]


@pytest.mark.parametrize(
    "date", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", "2016-13-01T00:00:00Z", ""]
)
def test_a_date_that_cannot_be_is_counted(tmp_path: Path, date: str) -> None:
    path = archive(
        tmp_path / "x.warc.gz",
        ("http://a.com/", date, 200, b"<p>x"),
        ("http://a.com/", "1600-01-01T00:00:00+01:00", 200, b"<p>old"),
    )
    counts = replay(tmp_path / "ledger", path, "http://a.com/")
    assert (counts["unreadable"], counts["copied"]) == (1, 1)
    (row,) = observations.read(tmp_path / "ledger").to_pylist()
    assert row["fetched_at"].isoformat() == "1599-12-31T23:00:00+00:00"


@pytest.mark.parametrize("share", [0.45, 0.55, 0.6, 0.99])
def test_a_record_that_is_torn_is_counted_and_not_stored(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.warc.gz"
    bodies = [random.Random(n).randbytes(30_000) for n in range(8)]
    archive(path, *((f"http://a.com/{n}", A16, 200, body) for n, body in enumerate(bodies)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    counts = replay(tmp_path / "ledger", str(path), *(f"http://a.com/{n}" for n in range(8)))
    assert counts["unreadable"] == 1
    assert counts["copied"] == int(8 * share)
    rows = observations.read(tmp_path / "ledger").to_pylist()
    assert {row["digest"] for row in rows} == {warc.digest(b) for b in bodies[: int(8 * share)]}
    assert {row["outcome"] for row in rows} == {"ok"}


def test_a_reason_that_is_not_ascii_costs_nothing(tmp_path: Path) -> None:
    block = b"HTTP/1.1 200 Tr\xe8s bien\r\nContent-Type: text/html\r\nX-\xe9: \xe9\r\n\r\n<p>x"
    path = tmp_path / "x.warc"
    path.write_bytes(
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.com/\r\n"
        b"WARC-Date: 2016-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: %d\r\n\r\n%b\r\n\r\n" % (len(block), block)
    )
    assert replay(tmp_path / "ledger", str(path), "http://a.com/") == {"copied": 1}
    assert page_of(tmp_path / "ledger", "http://a.com/")["outcome"] == "ok"


def test_one_archive_is_replayed_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "x.warc.gz", *((f"http://a.com/{n}", A16, 200, b"<p>x")
                                             for n in range(20)))  # fmt: skip
    asked = [f"http://a.com/{n}" for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: replay(tmp_path / "ledger", path, *asked), range(4)))
    assert sorted(count["copied"] for count in counts) == [0, 0, 0, 20]
    assert len(observations.read(tmp_path / "ledger")) == 20


@pytest.mark.parametrize("status", [203, 206, 301])
def test_only_a_capture_of_status_200_is_copied(tmp_path: Path, status: int) -> None:
    path = archive(tmp_path / "x.warc.gz", ("http://a.com/", A16, status, b"<p>x"))
    counts = replay(tmp_path / "ledger", path, "http://a.com/")
    assert counts == {"not_response": 1, "not_200": 1}


def test_a_capture_that_its_crawler_cut_stays_known_as_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    half = warc.Answer(200, "OK", (("Content-Type", "text/html"),), b"<p>half a pa")
    with path.open("wb") as file:
        foreign.write(file, "http://a.com/", A16, half, truncated="length")
    assert replay(tmp_path / "ledger", str(path), "http://a.com/") == {"copied": 1}
    assert page_of(tmp_path / "ledger", "http://a.com/")["outcome"] == "too_large"
    (copy,) = (tmp_path / "ledger").glob("*.warc.gz")
    assert [
        record.truncated for record in warc.records(str(copy), 1000) if record.kind == "response"
    ] == ["length"]
