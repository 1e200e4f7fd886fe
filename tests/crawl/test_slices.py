"""What was chosen in an index is copied from where it stands, once, if it is what was promised."""

import datetime
import gzip
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import (
    archives,
    canonical,
    captures,
    indexes,
    links,
    observations,
    ranges,
    slices,
    submissions,
    url,
    warc,
)
from crawl.config import CrawlConfig
from crawl.schema import CANDIDATES, CHOSEN, OBSERVATIONS, Observation, PageOutcome
from crawl.streams import Part
from pipeline.stage import Account
from tests import web
from tests.common_crawl import FORMS, Archive, Capture, moved, recorded, served

NOON = datetime.datetime(2016, 1, 1, 12, tzinfo=datetime.UTC)


def chosen(*rows: Capture, link: str | None = None) -> pa.RecordBatch:
    """Rows of CHOSEN for these rows of an index, in order of their files."""
    made = []
    for row in rows:
        asked = url.fetch_url(link or row.url)
        assert asked
        made.append(
            {
                "file_id": indexes.file_id(row.file),
                "link_id": canonical.link_id(canonical.url_key(asked)),
                "first_seen": None,
                "url": row.url,
                "captured_at": row.moment,
                "is_truncated": False,
                "digest": row.digest,
                "file": row.file,
                "offset": row.offset,
                "length": row.length,
            }
        )
    made.sort(key=lambda one: one["file_id"])
    return pa.RecordBatch.from_pylist(made, CHOSEN)


def copy(folder: Path, base: Path | str, *batches: pa.RecordBatch, **settings: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    config = CrawlConfig(archive_base=str(base), **settings)
    slices.copy(batches, str(folder), config, counts, sleep=lambda _: None)
    return counts


def test_a_capture_is_copied_with_its_own_date_and_address(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    archive.add("http://a.com/other", "2015-01-01", b"<p>other" * 99)
    row = archive.add("https://www.a.com/x?utm_source=q", "2016-01-02", b"<p>archived")
    batch = chosen(row, link="http://a.com/x")
    assert copy(tmp_path / "ledger", archive.base, batch) == {"copied": 1}
    (found,) = observations.read(tmp_path / "ledger").to_pylist()
    assert (found["source"], found["outcome"], found["status"]) == ("archive", "ok", 200)
    assert found["final_url"] == row.url and found["asked"] == row.file
    assert found["url_key"] == canonical.url_key("http://a.com/x")
    assert found["fetched_at"] == row.moment
    assert found["digest"] == f"sha1:{row.digest}"
    place = warc.Place(found["warc_offset"], found["warc_length"])
    assert warc.read(tmp_path / "ledger" / found["warc_file"], place).body == b"<p>archived"


def test_what_does_not_stand_there_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    good = [archive.add(f"http://a.com/{n}", "2016-01-02", b"<p>%d" % n) for n in range(2)]
    gone = archive.add("http://a.com/gone", "2016-01-02", status=404)
    row = archive.add("http://a.com/x", "2016-01-02", b"<p>x" * 500)
    long = archive.add("http://a.com/long", "2016-01-02", random.Random(1).randbytes(200_000))
    last = archive.add("http://a.com/last", "2016-01-02", b"<p>last")
    end = (archive.base / row.file).stat().st_size
    wrong = {
        "missing": moved(row, file="none.warc.gz"),
        "cut_off": moved(last, length=last.length + 1),
        "other_record": moved(row, digest="B" * 32),
        "unreadable": moved(row, offset=row.offset + 1),
        "not_200": gone,
    }
    rows = [*good, *wrong.values(), moved(last, offset=end + 5)]
    counts = copy(tmp_path / "ledger", archive.base, chosen(*rows), max_bytes=1024)
    assert counts == {**dict.fromkeys(wrong, 1), "copied": 2, "cut_off": 2}
    other = chosen(row, link="http://a.com/y")
    assert copy(tmp_path / "ledger", archive.base, other) == {"other_record": 1}
    assert copy(tmp_path / "ledger", archive.base, chosen(long), max_bytes=1024) == {
        "unreadable": 1
    }
    assert len(observations.read(tmp_path / "ledger")) == 2


@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz"])
@pytest.mark.parametrize("kind", ["request", "revisit", "metadata", "warcinfo", "response"])
def test_a_record_that_is_no_response_is_another(tmp_path: Path, kind: str, name: str) -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>x"
    record = (
        b"WARC/1.0\r\nWARC-Type: %b\r\nWARC-Target-URI: http://a.com/\r\n"
        b"WARC-Date: 2016-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: %d\r\n\r\n%b\r\n\r\n" % (kind.encode(), len(block), block)
    )
    written = gzip.compress(record) if name.endswith("gz") else record
    (tmp_path / name).write_bytes(written)
    row = Capture("http://a.com/", NOON, None, name, 0, len(written))
    expected = "copied" if kind == "response" else "other_record"
    assert copy(tmp_path / "ledger", tmp_path, chosen(row)) == {expected: 1}


def test_what_an_archived_page_says_of_ai_is_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    told = b'<html><head><meta name="robots" content="noai"></head><p>x'
    rows = [
        archive.add("http://a.com/meta", "2016-01-02", told),
        archive.add("http://a.com/header", "2016-01-02", headers=(("X-Robots-Tag", "noindex"),)),
        archive.add(
            "http://a.com/ours", "2016-01-02", headers=(("X-Robots-Tag", "webtext: noai"),)
        ),
        archive.add("http://a.com/silent", "2016-01-02"),
    ]
    agent = "webtext/1 (+https://example.org/bot)"
    copy(tmp_path / "ledger", archive.base, chosen(*rows), user_agent=agent)
    found = observations.read(tmp_path / "ledger").to_pylist()
    assert {row["final_url"].rpartition("/")[2]: row["ai_signals"] for row in found} == {
        "meta": "meta: noai",
        "header": "x-robots-tag: noindex",
        "ours": "x-robots-tag: noai",
        "silent": None,
    }


@pytest.mark.parametrize("promised", ["sha1:{}", "{}", "SHA1:{}", None, "-"])
def test_a_digest_is_known_in_every_spelling(tmp_path: Path, promised: str | None) -> None:
    archive = Archive(tmp_path / "cc")
    row = archive.add("http://a.com/", "2016-01-02")
    said = promised.format(row.digest) if promised else None
    batch = chosen(moved(row, digest=said))
    assert copy(tmp_path / "ledger", archive.base, batch) == {"copied": 1}


def test_a_digest_that_counts_the_framing_of_chunks_is_the_records_own(tmp_path: Path) -> None:
    block = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\n<p>x\r\n0\r\n\r\n"
    )
    own = "C" * 32
    record = (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.com/\r\n"
        b"WARC-Date: 2016-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"WARC-Payload-Digest: sha1:%b\r\nContent-Length: %d\r\n\r\n%b\r\n\r\n"
        % (own.encode(), len(block), block)
    )
    (tmp_path / "x.warc.gz").write_bytes(packed := gzip.compress(record))
    row = Capture("http://a.com/", NOON, own, "x.warc.gz", 0, len(packed))
    assert copy(tmp_path / "ledger", tmp_path, chosen(moved(row, digest="D" * 32))) == {
        "other_record": 1
    }
    assert copy(tmp_path / "ledger", tmp_path, chosen(row)) == {"copied": 1}
    (found,) = observations.read(tmp_path / "ledger").to_pylist()
    assert found["digest"] == warc.digest(b"<p>x")


def test_what_the_ledger_holds_is_not_asked_for_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    moment = "2016-01-02T03:04:05.678+00:00"
    rows = [archive.add(f"http://a.com/{n}", moment, b"<p>%d" % n) for n in range(3)]
    # an index tells seconds
    rows = [moved(row, moment=row.moment.replace(microsecond=0)) for row in rows]
    with served(archive.base) as store:
        assert copy(tmp_path / "ledger", store.base, chosen(*rows[:2])) == {"copied": 2}
        asked = len(store.log)
        assert copy(tmp_path / "ledger", store.base, chosen(*rows[:2])) == {"already": 2}
        assert len(store.log) == asked
        assert copy(tmp_path / "ledger", store.base, chosen(*rows)) == {"already": 2, "copied": 1}
    assert len(observations.read(tmp_path / "ledger")) == 3


def test_what_an_index_gave_a_whole_archive_does_not_double(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cc")
    row = archive.add("http://www.a.com/x?utm_source=q", "2016-01-02")
    assert copy(tmp_path / "ledger", archive.base, chosen(row, link="http://a.com/x"))["copied"]
    counts: Counter[str] = Counter()
    path, kept = str(archive.base / row.file), [web.links_to("http://a.com/x")]
    archives.replay(path, kept, str(tmp_path / "ledger"), CrawlConfig(), counts)
    assert counts == {"already": 1}


def test_after_a_server_failed_what_was_copied_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "TOGETHER", 2)
    archive = Archive(tmp_path / "cc")
    rows = [
        archive.add(f"http://a.com/{n}", "2016-01-02", b"<p>%d" % n, name=f"{n}.warc.gz")
        for n in range(6)
    ]
    batch = chosen(*rows)
    with served(archive.base) as store:
        log = store.log

        class Until(list[tuple[str, str | None]]):
            def append(self, asked: tuple[str, str | None]) -> None:
                store.status = 503 if len(self) >= 3 else 0
                super().append(asked)

        store.log = Until(log)
        with pytest.raises(ranges.Unreachable):
            copy(tmp_path / "ledger", store.base, batch)
        observations.recover(tmp_path / "ledger")
        held = len(observations.read(tmp_path / "ledger"))
        assert 0 < held < 6
        store.log, store.status = [], 0
        counts = copy(tmp_path / "ledger", store.base, batch)
        assert counts == {"already": held, "copied": 6 - held}
        assert len(store.log) == 6 - held
    assert len(observations.read(tmp_path / "ledger")) == 6


def test_nothing_chosen_asks_for_nothing(tmp_path: Path) -> None:
    assert copy(tmp_path / "ledger", tmp_path / "none") == {}
    assert copy(tmp_path / "ledger", tmp_path / "none", chosen()) == {}


@given(
    st.lists(
        st.builds(
            Observation,
            link_id=st.sampled_from([b"a" * 16, b"a" + b"\0" * 15]),
            url_key=st.just("http://a.com/"),
            url=st.just("http://a.com/"),
            outcome=st.sampled_from([PageOutcome.OK, PageOutcome.NOT_HTML]),
            source=st.just("archive"),
            status=st.sampled_from([None, 200]),
            bytes=st.sampled_from([None, 0, 7]),
            final_url=st.sampled_from([None, "", "http://é.com/"]),
            fetched_at=st.sampled_from([NOON, NOON.replace(microsecond=5000, year=1500)]),
        )
    )
)
def test_a_row_is_known_by_its_columns_and_by_itself(rows: list[Observation]) -> None:
    whole = captures.Known(captures.FULL)
    table = pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], OBSERVATIONS)
    for batch in table.select(captures.FULL).to_batches():
        whole.hold(batch)
    whole.settle()
    assert not any(whole.add(row) for row in rows)
    new = captures.Known(captures.FULL)
    assert [new.add(row) for row in rows] == [row not in rows[:n] for n, row in enumerate(rows)]


@pytest.mark.slow
def test_the_real_pages_come_by_index_as_from_the_archive(data: Path, tmp_path: Path) -> None:
    source = str(data / "web" / "wcxb-dev.warc.zst")
    archive = recorded(source, tmp_path / "cc")
    assert len(archive.captures) == 966
    config = CrawlConfig(min_karma=1, over_18=True, followed_domains=("reddit.com",))
    posts = submissions.read(Part(str(data / "reddit" / "RS_wcxb_made.zst")), config, Account())
    kept = list(links.merge(posts, config))
    found = []
    for form, write in FORMS.items():
        path = write(tmp_path / form, archive.captures)
        rows = pa.Table.from_batches(indexes.look(path, kept, Account()), CANDIDATES)
        found.append(rows.sort_by("link_id").drop_columns(["is_truncated"]).to_pylist())
    assert len(found[0]) == 966 and all(rows == found[0] for rows in found)
    rows = rows.sort_by("link_id")
    chosen_rows = pa.Table.from_batches(
        indexes.choose(rows.to_batches(), Account(), observations="none"), CHOSEN
    )
    batches = chosen_rows.sort_by("file_id").to_batches(100)
    with served(archive.base) as store:
        assert copy(tmp_path / "sliced", store.base, *batches) == {"copied": 966}
        # what lies near together is read as one: all of a file is wanted
        assert len(store.log) < 966 / 3
    counts: Counter[str] = Counter()
    archives.replay(source, kept, str(tmp_path / "whole"), config, counts)
    same = ["link_id", "digest", "final_url", "outcome", "bytes", "ai_signals"]
    one, other = (
        observations.read(tmp_path / name).select(same).sort_by("link_id").to_pylist()
        for name in ("sliced", "whole")
    )
    assert one == other
