"""The jobs of a task: queues by host, counted down to nothing, each written where it belongs."""

import gzip
from typing import Any

import pyarrow as pa
import pytest

from crawl import robots, todo, warc
from crawl.config import CrawlConfig
from crawl.schema import OBSERVATIONS
from crawl.work import Fetched, Handed, OriginFile, Page, Work
from tests import web

OWN: Any = "own ledger"
VISITORS: Any = "visitors' ledger"
NOTES: Any = None
CONFIG = CrawlConfig(user_agent="webtext/1.0 (+https://example.org/bot)")
ADDRESSES = ("http://b.test/2#part", "http://a.test/1", "http://b.test/1", "http://b.test/3")


def work(*addresses: str, **given: Any) -> Work:
    kept = todo.kept(pa.Table.from_batches([web.links_to(*addresses)]))
    links = todo.of(kept, OBSERVATIONS.empty_table(), CONFIG)
    return Work(OWN, VISITORS, NOTES, links, **given)


def handed(target: str, hops: int = 1) -> Handed:
    return Handed(b"\1" * 16, "http://x.test/", target, hops)


def test_links_are_queued_by_host_and_made_when_their_turn_comes() -> None:
    queues = dict(work(*ADDRESSES).queues())
    assert {host: len(jobs) for host, jobs in queues.items()} == {"a.test": 1, "b.test": 3}
    assert sorted(page.target for page in queues["b.test"]) == [  # type: ignore[union-attr]
        "http://b.test/1", "http://b.test/2", "http://b.test/3"
    ]  # fmt: skip
    (first,) = queues["a.test"]
    assert isinstance(first, Page)
    assert (first.url, first.start, first.target, first.hops) == ("http://a.test/1",) * 3 + (0,)
    by_url = {page.url: page for page in queues["b.test"]}  # type: ignore[union-attr]
    assert by_url["http://b.test/2#part"].start == "http://b.test/2"


def test_a_range_of_links_is_a_sequence() -> None:
    jobs = dict(work(*ADDRESSES).queues())["b.test"]
    assert [page.target for page in jobs[1:]] == [page.target for page in jobs][1:]
    assert len(jobs[2:1]) == 0 and len(jobs[:99]) == 3
    for place in (3, -4):
        with pytest.raises(IndexError):
            jobs[place]
    assert [one.target for one in jobs[0:1]] == [jobs[0].target]


def test_what_was_handed_over_is_queued_at_the_host_it_leads_to() -> None:
    step = robots.Step("http://o.test", "webtext", "http://b.test/robots.txt", ("x",))
    visits = [handed("http://b.test/9", 2), handed("http://c.test/")]
    task = work("http://b.test/1", handed=visits, files=[step])
    queues = [(host, list(jobs)) for host, jobs in task.queues()]
    assert [host for host, _ in queues] == ["b.test", "b.test", "c.test"]
    page, file = queues[1][1]
    assert isinstance(page, Page) and isinstance(file, OriginFile)
    assert (page.start, page.target, page.hops) == ("http://b.test/9", "http://b.test/9", 2)
    assert (file.kind, file.origin, file.target) == ("handed", "http://o.test", step.target)
    assert file.step == step
    assert task.jobs() == 4


def test_a_task_is_done_when_each_job_was_settled_put_off_or_given_back() -> None:
    task = work("http://a.test/1", "http://a.test/2", "http://b.test/")
    task.begin()
    pages = [page for _, jobs in task.queues() for page in jobs]
    task.settled()
    task.give_back()
    assert (task.given_back, task.done.is_set()) == (1, False)
    assert isinstance(pages[-1], Page)
    task.put_off(pages[-1])
    assert task.done.is_set() and task.waiting == {pages[-1].link_id}


def test_a_task_without_jobs_is_done_at_once() -> None:
    task = work()
    task.begin()
    assert task.done.is_set() and list(task.queues()) == []


def test_what_was_handed_over_is_written_apart_be_it_the_link_itself() -> None:
    link = "http://a.test/1"
    task = work(link, handed=[Handed(b"\1" * 16, link, link, 2)])
    own, visit = [page for _, jobs in task.queues() for page in jobs if isinstance(page, Page)]
    assert own.target == visit.target
    assert (task.writer_of(own), task.writer_of(visit)) == (OWN, VISITORS)


TEXT = b"User-agent: *\nDisallow: /no\n"
PLAIN = (("Content-Type", "text/plain"),)
PACKED = (*PLAIN, ("Content-Encoding", "gzip"))
STEP = robots.begin("http://a.test/", "webtext")
LONG = TEXT + b"# and so on\n" * 100_000


@pytest.mark.parametrize(
    ("status", "headers", "body", "truncated"),
    [
        (200, PLAIN, TEXT, None),
        (200, PLAIN, b"\xef\xbb\xbf" + TEXT, None),
        (200, PACKED, gzip.compress(TEXT, mtime=0), None),
        (200, PACKED, b"no gzip", None),
        (200, PLAIN, TEXT, "disconnect"),  # half a file is none
        (200, PLAIN, TEXT, "time"),
        (200, PLAIN, LONG[: robots.MAX_BYTES + 1], "length"),
        (200, (*PLAIN, ("Content-Encoding", "x-unknown")), TEXT, None),
        (404, PLAIN, TEXT, None),
        (403, PACKED, b"no gzip", None),
        (429, PLAIN, TEXT, None),
        (500, PLAIN, TEXT, None),
        (301, (("Location", "mailto:x@a.test"),), b"", None),  # leads to what nobody can ask for
        (301, (("Location", "http://u:p@a.test/"),), b"", None),
        (301, (("Location", "/robots.txt"),), b"", None),  # a loop: as if there were no file
        (301, (), TEXT, None),
        (304, PLAIN, b"", None),
    ],
)
def test_a_robots_txt_that_was_handed_back_says_what_it_said(
    status: int, headers: warc.Headers, body: bytes, truncated: str | None
) -> None:
    led = robots.answered(STEP, status, headers, body, truncated=truncated)
    assert isinstance(led, robots.Rules)
    told = Fetched.of("http://o.test", led, warc.Answer(status, "", headers, body))
    assert robots.verdict(told.status, told.body, "webtext") == led
    assert len(told.body) <= robots.MAX_BYTES + 1
