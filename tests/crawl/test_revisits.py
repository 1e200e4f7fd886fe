"""A revisit becomes the page that it stands for, where its original is in the same file."""

import datetime
import gzip
import io
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from crawl import archives, capture, observations, revisits, warc
from crawl.config import CrawlConfig
from tests import web
from tests.crawl.conftest import Settings, crawl

CONFIG = CrawlConfig(live=False)
MOMENT = datetime.datetime(2016, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
HTML = ("Content-Type", "text/html")
PROFILE = "http://netpreserve.org/warc/1.0/revisit/identical-payload-digest"


def ours(*bodies: bytes) -> bytes:
    """As our own ledger writes them, one page a day."""
    file, seen = io.BytesIO(), capture.Seen("x")
    for n, body in enumerate(bodies):
        answer = warc.Answer(200, "OK", (HTML, ("X-N", str(n))), body)
        exchange = warc.Exchange(f"http://a.com/{n}", MOMENT + n * DAY, answer)
        capture.write(file, exchange, {}, seen)
    return file.getvalue()


def replay(folder: Path, path: Path, *addresses: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    archives.replay(str(path), [web.links_to(*addresses)], str(folder), CONFIG, counts)
    return counts


def test_what_the_ledger_wrote_can_be_replayed_whole(
    tmp_path: Path, site: web.Site, settings: Settings
) -> None:
    for name in ("x", "y"):
        site.page("a.web.test", f"/{name}", "<p>the same text")
    addresses = "http://a.web.test/x", "http://a.web.test/y"
    first = crawl(settings(), tmp_path / "live", *addresses)
    assert [row["outcome"] for row in first.values()] == ["ok", "ok"]
    paths = sorted((tmp_path / "live").glob("*.warc.gz"))
    kinds = [record.kind for path in paths for record in warc.records(str(path), 1000)]
    assert kinds.count("revisit") == 1
    for path in paths:
        replay(tmp_path / "again", path, *addresses)
    again = crawl(CONFIG, tmp_path / "again", *addresses)
    for column in ("outcome", "digest", "fetched_at", "content_type"):
        assert [row[column] for row in again.values()] == [row[column] for row in first.values()]


@pytest.mark.parametrize("name", ["x.warc.gz", "x.warc"])
def test_a_revisit_has_its_own_headers_and_date_and_the_body_of_another(
    tmp_path: Path, name: str
) -> None:
    """Whether that other page is asked for, too, does not matter."""
    data = ours(b"<p>text", b"<p>other", b"<p>text")
    path = tmp_path / name
    path.write_bytes(data if name.endswith("gz") else gzip.decompress(data))
    counts = replay(tmp_path / "ledger", path, "http://a.com/2")
    assert counts == {"copied": 1, "no_link": 2}
    (row,) = observations.read(tmp_path / "ledger").to_pylist()
    assert row["digest"] == warc.digest(b"<p>text") and row["fetched_at"] == MOMENT + 2 * DAY
    place = warc.Place(row["warc_offset"], row["warc_length"])
    copy = warc.read(tmp_path / "ledger" / row["warc_file"], place)
    assert (copy.body, copy.header("X-N")) == (b"<p>text", "2")
    assert replay(tmp_path / "ledger", path, "http://a.com/2")["already"] == 1


def test_one_whose_original_is_not_there_is_counted_as_such(tmp_path: Path) -> None:
    both = ours(b"<p>text", b"<p>text")
    end = both.index(b"\x1f\x8b\x08\x00\x00", 1)
    for name, data in {
        "another file": both[end:],
        "damaged": both[: end // 2] + both[end:],
        "behind it": both[end:] + both[:end],
    }.items():
        (tmp_path / "x.warc.gz").write_bytes(data)
        counts = replay(tmp_path / name, tmp_path / "x.warc.gz", "http://a.com/1")
        assert counts["revisit"] == 1, (name, counts)
        assert not len(observations.read(tmp_path / name))


def test_what_cannot_be_read_at_a_place_is_not_resolved(tmp_path: Path) -> None:
    plain = gzip.decompress(ours(b"<p>text", b"<p>text"))
    for name, data in {
        "x.warc.zst": zstandard.compress(plain),
        "y.warc.gz": gzip.compress(plain),
    }.items():
        (tmp_path / name).write_bytes(data)
        counts = replay(tmp_path / name[0], tmp_path / name, "http://a.com/0", "http://a.com/1")
        # the first record of a member can be read alone
        assert counts == ({"copied": 1, "revisit": 1} if name[0] == "x" else {"copied": 2})


def foreign(path: Path, digest: str | None, *, headers: bool, date: str = "") -> None:
    """As warcio writes a revisit: the original by its address and date alone."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        http = StatusAndHeaders("200 OK", [HTML], "HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(
                "http://a.com/0",
                "response",
                payload=io.BytesIO(b"<p>text"),
                http_headers=http,
                warc_headers_dict={"WARC-Date": "2016-01-01T00:00:00Z"},
            )
        )
        record = writer.create_revisit_record(
            "http://a.com/1",
            digest or "",
            "http://a.com/0",
            date or "2016-01-01T00:00:00Z",
            http_headers=StatusAndHeaders("200 OK", [HTML, ("X-N", "1")], "HTTP/1.1")
            if headers
            else None,
        )
        writer.write_record(record)


@pytest.mark.parametrize("headers", [True, False])
def test_an_original_may_be_named_by_its_address_and_date(tmp_path: Path, headers: bool) -> None:
    path = tmp_path / "x.warc.gz"
    foreign(path, warc.digest(b"<p>text"), headers=headers)
    assert replay(tmp_path / "ledger", path, "http://a.com/1")["copied"] == 1
    (row,) = observations.read(tmp_path / "ledger").to_pylist()
    assert row["digest"] == warc.digest(b"<p>text") and row["content_type"] == "text/html"


@pytest.mark.parametrize("harm", ["digest", "date"])
def test_what_is_not_what_was_promised_is_not_taken(tmp_path: Path, harm: str) -> None:
    digest = warc.digest(b"<p>other" if harm == "digest" else b"<p>text")
    path, date = tmp_path / "x.warc.gz", "2015-01-01T00:00:00Z" if harm == "date" else ""
    foreign(path, digest, headers=True, date=date)
    assert replay(tmp_path / "ledger", path, "http://a.com/1")["revisit"] == 1


def test_the_places_that_are_held_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisits, "MOST", 10)
    path = tmp_path / "x.warc.gz"
    bodies = [b"<p>%d" % n for n in range(100)]
    path.write_bytes(ours(*bodies, bodies[0], bodies[99]))
    originals = revisits.Originals(str(path), 1000)
    found = []
    for record in warc.records(str(path), 1000):
        originals.note(record)
        assert len(originals._new) + len(originals._old) <= 42
        if record.kind == "revisit":
            found.append(originals.resolved(record))
    assert found[0] is None and found[1] is not None
    assert found[1].answer is not None and found[1].answer.body == bodies[99]
