"""Pages: one row a kept link, nothing asked twice, whatever instant it is stopped at."""

import asyncio
import datetime
import errno
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawl import network, observations, pages, segments, warc
from crawl.schema import VOLATILE, BadInput, Observation, PageOutcome
from tests import web

from .conftest import Settings, crawl, rows

PAGE = "<html><body><p>Some text.</p></body></html>"
ROOT = Path(__file__).parents[2]


def test_a_page_comes_with_its_response(site: web.Site, settings: Settings, tmp_path: Path) -> None:
    site.page("a.web.test", "/x?y=1", PAGE)
    row = crawl(settings(), tmp_path, "http://a.web.test/x?y=1#part")[
        "http://a.web.test/x?y=1#part"
    ]
    assert (row["outcome"], row["source"], row["status"]) == ("ok", "live", 200)
    assert row["final_url"] == "http://a.web.test/x?y=1"
    assert row["content_type"] == web.HTML
    assert row["bytes"] == len(PAGE) and row["digest"] == warc.digest(PAGE.encode())
    place = warc.Place(row["warc_offset"], row["warc_length"])
    assert warc.read(tmp_path / row["warc_file"], place).body == PAGE.encode()
    asked = site.log[-1].headers
    assert asked["user-agent"] == "webtext/1.0 (+https://example.org/bot)"
    assert "cookie" not in asked


def test_nothing_observed_is_asked_again(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    site.page("a.web.test", "/1", PAGE)
    first = crawl(settings(), tmp_path, "http://a.web.test/1", "http://a.web.test/404")
    asked = len(site.log)
    assert crawl(settings(), tmp_path, "http://a.web.test/1", "http://a.web.test/404") == first
    assert len(site.log) == asked
    site.page("a.web.test", "/2", PAGE)
    more = crawl(settings(), tmp_path, "http://a.web.test/1", "http://a.web.test/2")
    assert site.paths("a.web.test")[asked:] == ["/robots.txt", "/2"]
    assert more["http://a.web.test/1"] == first["http://a.web.test/1"]


def test_only_kept_links_have_rows_and_an_empty_range_is_well(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    refused = web.links_to("http://a.web.test/1", outcome="media")
    assert rows(settings(), tmp_path, [refused]) == {}
    assert rows(settings(), tmp_path, []) == {}
    assert site.log == []


def test_a_machine_without_sockets_blames_no_host(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    site.page("a.web.test", "/1", PAGE)
    with monkeypatch.context() as poor:
        poor.setattr(network, "_socket", no_more)
        with pytest.raises(OSError, match="Too many open files"):
            crawl(settings(), tmp_path, "http://a.web.test/1")
    assert len(observations.read(tmp_path)) == 0
    assert (
        crawl(settings(), tmp_path, "http://a.web.test/1")["http://a.web.test/1"]["outcome"] == "ok"
    )


def test_without_live_nothing_is_asked(site: web.Site, settings: Settings, tmp_path: Path) -> None:
    found = crawl(settings(live=False), tmp_path, "http://a.web.test/1")
    assert found["http://a.web.test/1"]["outcome"] == "not_archived"
    assert site.log == []


def test_what_a_killed_crawl_left_in_its_journal_is_seen_without_live(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    ledger, journal = tmp_path / "ledger", tmp_path / "journal"
    (link,) = web.links_to("http://a.web.test/1").to_pylist()
    low, high = observations.LOWEST, observations.HIGHEST
    writer = observations.Writer(ledger, low, high, label="live", journal=journal)
    writer.append(
        Observation(
            link_id=link["link_id"],
            url_key=link["url_key"],
            url=link["fetch_url"],
            outcome=PageOutcome.TIMEOUT,
            source="live",
            fetched_at=pages.utc_now(),
        )
    )
    writer._segment.abandon()  # type: ignore[union-attr]
    found = crawl(settings(live=False, journal=str(journal)), ledger, "http://a.web.test/1")
    assert found["http://a.web.test/1"]["outcome"] == "timeout"
    assert site.log == []


def test_a_host_is_asked_for_no_more_than_its_budget(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://a.web.test/{n}" for n in range(5)]
    found = crawl(settings(max_pages_per_host=2), tmp_path, *addresses)
    order = sorted(found.values(), key=lambda row: row["link_id"])
    assert [row["outcome"] for row in order] == ["http_error"] * 2 + ["over_host_budget"] * 3
    assert len(site.paths("a.web.test")) == 3
    # a choice of today, not an observation: a larger budget asks for the rest
    more = crawl(settings(max_pages_per_host=4), tmp_path, *addresses)
    assert Counter(row["outcome"] for row in more.values()) == {
        "http_error": 4, "over_host_budget": 1
    }  # fmt: skip
    # nor does it depend on what a larger one gave
    assert crawl(settings(max_pages_per_host=2), tmp_path, *addresses) == found


def test_a_page_that_an_archive_has_costs_its_host_no_budget(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://a.web.test/{n}" for n in range(3)]
    links = web.links_to(*addresses).to_pylist()
    low, high = observations.LOWEST, observations.HIGHEST
    with observations.Writer(tmp_path, low, high, label="test") as writer:
        writer.append(
            Observation(
                link_id=links[0]["link_id"],
                url_key=links[0]["url_key"],
                url=links[0]["fetch_url"],
                outcome=PageOutcome.OK,
                source="archive",
                fetched_at=pages.utc_now(),
            )
        )
    found = crawl(settings(max_pages_per_host=1), tmp_path, *addresses)
    order = sorted(found.values(), key=lambda row: row["link_id"])
    assert [row["outcome"] for row in order] == ["ok", "http_error", "over_host_budget"]


def test_rows_do_not_depend_on_order_or_on_how_much_is_asked_at_once(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://h{n % 3}.web.test/{n}" for n in range(9)]
    for n, address in enumerate(addresses):
        site.page(f"h{n % 3}.web.test", f"/{n}", f"<p>{address}") if n % 2 else None
    one = crawl(settings(connections=1), tmp_path / "one", *addresses)
    many = crawl(settings(connections=9), tmp_path / "many", *reversed(addresses))
    for row in [*one.values(), *many.values()]:
        for column in VOLATILE["pages"]:
            del row[column]
    assert one == many


def test_settings_with_which_nobody_should_be_asked_are_refused(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"^crawl\.user_agent: [^\n]*$"):
        crawl(settings(user_agent=""), tmp_path, "http://a.web.test/")
    with pytest.raises(BadInput, match=r"^crawl\.ca_file: [^\n]*$"):
        crawl(settings(ca_file=str(tmp_path / "none.pem")), tmp_path, "http://a.web.test/")
    assert site.log == []


def test_dates_and_durations_come_from_the_clocks_handed_in(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    moment = datetime.datetime(2001, 2, 3, tzinfo=datetime.UTC)
    batch = web.links_to("http://a.web.test/")
    list(pages.ask([batch], str(tmp_path), settings(), now=lambda: moment))
    (found,) = pages.fetch([batch], str(tmp_path), settings())
    assert found.column("fetched_at").to_pylist() == [moment]


CRAWLER = """
import sys, msgspec
from crawl import pages
from crawl.config import CrawlConfig
from tests import web
config = msgspec.json.decode(sys.argv[1], type=CrawlConfig)
list(pages.ask([web.links_to(*sys.argv[3:])], sys.argv[2], config))
"""


KILL, INTERRUPT = signal.SIGKILL, signal.SIGINT


@pytest.mark.parametrize(("by", "asked"), [(KILL, 3), (KILL, 9), (KILL, 16), (INTERRUPT, 9)])
def test_a_stopped_crawl_goes_on_where_it_was(
    site: web.Site, settings: Settings, tmp_path: Path, by: signal.Signals, asked: int
) -> None:
    addresses = [f"http://h{n % 2}.web.test/{n}" for n in range(16)]
    for n in range(16):
        site.page(f"h{n % 2}.web.test", f"/{n}", f"<p>page {n}")
    config = settings(min_delay_s=0.02)
    arguments = [msgspec.json.encode(config).decode(), str(tmp_path), *addresses]
    child = subprocess.Popen(
        [sys.executable, "-c", CRAWLER, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while len(site.log) < asked and child.poll() is None:
        time.sleep(0.001)
    assert child.stderr and len(site.log) >= asked, child.stderr and child.stderr.read()
    child.send_signal(by)
    child.wait()
    durable = set(observations.read(tmp_path)["final_url"].to_pylist()) | {
        row.final_url
        for journal in tmp_path.glob("*.ndjson.open")
        for row in (line.row for line in segments._lines(journal))
        if row
    }
    assert by == KILL or (durable and not list(tmp_path.glob("*.open")))
    before = len(site.log)
    found = crawl(config, tmp_path, *addresses)
    assert Counter(row["outcome"] for row in found.values()) == {"ok": 16}
    again = {f"http://{hit.host}{hit.path}" for hit in site.log[before:]}
    assert not durable & again
    ledger = observations.read(tmp_path)
    assert len(ledger) == 16
    for row in found.values():
        place = warc.Place(row["warc_offset"], row["warc_length"])
        response = warc.read(tmp_path / row["warc_file"], place)
        assert warc.digest(response.body) == row["digest"]
    assert not list(tmp_path.glob("*.open"))


def test_two_processes_on_one_range_ask_each_url_once(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    addresses = [f"http://a.web.test/{n}" for n in range(6)]
    for n in range(6):
        site.page("a.web.test", f"/{n}", PAGE)
    config = settings(min_delay_s=0.05, retries=0)
    settled = msgspec.json.encode(config).decode()
    # the ranges overlap and are not the same: the links of one came later
    ranges = (addresses, addresses[:4])
    children = [
        subprocess.Popen([sys.executable, "-c", CRAWLER, settled, str(tmp_path), *asked], cwd=ROOT)
        for asked in ranges
    ]
    assert [child.wait() for child in children] == [0, 0]
    asked = Counter(site.paths("a.web.test"))
    assert [asked[f"/{n}"] for n in range(6)] == [1] * 6
    assert len(observations.read(tmp_path)) == 6
    assert not list(tmp_path.glob("*.claim"))


def test_two_shards_do_not_wait_for_each_other(
    site: web.Site, settings: Settings, tmp_path: Path
) -> None:
    one, other = "http://a.web.test/1", "http://b.other.test/1"

    async def meanwhile(writer: Any) -> None:
        # while the first shard waits for this answer, the second is asked for from end to end
        found = await asyncio.to_thread(crawl, settings(), tmp_path, other)
        writer.write(web.response(200 if found[other]["status"] == 404 else 500, PAGE.encode()))
        await writer.drain()

    site.route("a.web.test", "/1", meanwhile)
    assert crawl(settings(), tmp_path, one)[one]["status"] == 200


def test_a_link_that_was_asked_for_and_is_not_in_the_ledger_is_our_failure(
    site: web.Site, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations.Writer, "append", lambda *_: None)
    with pytest.raises(observations.Damaged, match=r"lacks 1 links .*http://a\.web\.test/1"):
        crawl(settings(), tmp_path, "http://a.web.test/1")
