"""One crawler for all tasks of a process: hosts of many ranges side by side; what is wanted back is
given back, what goes wrong is raised in everyone, and nobody is left to wait for ever."""

import asyncio
import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import canonical, network, observations, pages, service, todo
from crawl.config import CrawlConfig
from crawl.crawler import Crawler
from crawl.notes import Notes
from crawl.schema import OBSERVATIONS, BadInput
from crawl.service import Released
from crawl.work import Work
from tests import web

from .conftest import Owners, Settings, crawl

PAGE = "<html><body><p>Some text.</p></body></html>"
DEADLINE_S = 60.0
Settled = dict[int, BaseException | list[Any]]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.002)


class Tasks:
    """Each owner of some links asks in a thread of its own, in one process."""

    def __init__(self, owners: Owners, numbers: Iterable[int]) -> None:
        self.wanted = {n: threading.Event() for n in numbers}
        self.ended: Settled = {}
        self._owners = owners
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in self.wanted]
        for thread in self._threads:
            thread.start()

    def _ask(self, n: int) -> None:
        links, folder = [self._owners.links[n]], str(self._owners.folder)
        back = self.wanted[n].is_set
        try:
            self.ended[n] = list(pages.ask(links, folder, self._owners.config, wanted_back=back))
        except BaseException as error:  # noqa: BLE001  -- looked at by the test
            self.ended[n] = error

    def join(self) -> Settled:
        """How each ended."""
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a task waits for ever"
        return self.ended


def by_owner(owners: Owners, count: int, each: int) -> dict[int, str]:
    """A host for each of `count` owners, all its links with it."""
    found: dict[int, str] = {}
    for n in range(10_000):
        host = f"h{n}.test"
        found.setdefault(owners.of(canonical.domain_id(host)), host)
        if len(found) == count:
            return found
    raise AssertionError("no such hosts")


def made(
    site: web.Site, config: Any, folder: Path, *, hosts: int = 4, each: int = 3
) -> tuple[Owners, dict[int, str]]:
    """Owners with a host each."""
    named = by_owner(Owners(config, folder, count=hosts), hosts, each)
    addresses = [f"http://{host}/{n}" for host in named.values() for n in range(each)]
    for host in named.values():
        for n in range(each):
            site.page(host, f"/{n}", PAGE)
    return Owners(config, folder, *addresses, count=hosts), named


def test_hosts_of_many_tasks_are_asked_side_by_side(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """No host answers before a page of every other task's has been asked for."""
    owners, named = made(site, anywhere(), tmp_path, each=1)
    here: set[str] = set()
    all_here = threading.Event()

    def together(host: str) -> web.Handler:
        async def answer(writer: Any) -> None:
            here.add(host)
            if len(here) == len(named):
                all_here.set()
            while not all_here.is_set():
                await asyncio.sleep(0.005)
            writer.write(web.response(200, PAGE.encode()))
            await writer.drain()

        return answer

    for host in named.values():
        site.route(host, "/0", together(host))
    tasks = Tasks(owners, named)
    assert all(isinstance(end, list) for end in tasks.join().values())
    assert {page["outcome"] for page in owners.pages().values()} == {"ok"}


def test_the_longest_host_of_all_tasks_goes_first(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    config = anywhere(connections=1, min_delay_s=0.001)
    owners = Owners(config, tmp_path, count=2)
    hosts = list(by_owner(owners, 2, 1).values())
    gate = "http://gate.test/"
    addresses = [f"http://{hosts[0]}/0", *(f"http://{hosts[1]}/{n}" for n in range(40)), gate]
    free = threading.Event()

    async def wait(writer: Any) -> None:
        while not free.is_set():
            await asyncio.sleep(0.005)
        writer.write(web.response(404))
        await writer.drain()

    site.route("gate.test", "/robots.txt", wait)  # holds the one connection until all are queued
    owners = Owners(config, tmp_path, *addresses, count=2)
    first = owners.of(canonical.domain_id("gate.test"))
    tasks = Tasks(owners, [first])
    until(lambda: len(site.log) == 1)
    others = Tasks(owners, [1 - first])
    running = next(iter(service._RUNNING.values()))
    until(lambda: running.users == 2 and len(running.crawler._works) == 2)
    free.set()
    tasks.join()
    others.join()
    asked = [hit.host for hit in site.log if hit.host in hosts]
    assert asked[0] == hosts[1] and asked.index(hosts[0]) > 1


def test_a_task_that_is_wanted_back_gives_back_what_it_has_not_begun(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    owners, named = made(site, anywhere(min_delay_s=0.02), tmp_path, hosts=2, each=60)
    tasks = Tasks(owners, named)
    until(lambda: len(site.log) >= 10)
    back, other = named
    tasks.wanted[back].set()
    ended = tasks.join()
    assert isinstance(ended[back], Released)
    assert isinstance(ended[other], list)
    asked = Counter((hit.host, hit.path) for hit in site.log)
    assert 0 < sum(host == named[back] for host, _ in asked) < 61
    assert sum(host == named[other] for host, _ in asked) == 61
    # what was in flight ended as a row; whoever goes on asks for the rest, once
    rows = observations.read(tmp_path)
    assert len(rows) == sum(path != "/robots.txt" for _, path in asked)
    assert {page["outcome"] for page in owners.crawl().values()} == {"ok"}
    pages_of = Counter((hit.host, hit.path) for hit in site.log if hit.path != "/robots.txt")
    assert set(pages_of.values()) == {1} and len(pages_of) == 120


def slow_page(free: threading.Event, answer: bytes) -> web.Handler:
    async def wait(writer: Any) -> None:
        while not free.is_set():
            await asyncio.sleep(0.005)
        writer.write(answer)
        await writer.drain()

    return wait


@pytest.mark.parametrize("path", ["/robots.txt", "/1"])
@pytest.mark.parametrize(
    "answer",
    [web.redirect("http://www.a.test/2"), web.response(503, b"", {"Retry-After": "3000"})],
    ids=["hop", "retry after"],
)
def test_a_task_that_is_wanted_back_is_not_held_up_by_what_comes_then(
    site: web.Site, anywhere: Settings, tmp_path: Path, answer: bytes, path: str
) -> None:
    """What was in flight leads on, to a host that wants to be left alone for an hour."""
    free = threading.Event()
    site.route("a.test", path, slow_page(free, answer))
    site.robots("www.a.test", "User-agent: *\nCrawl-delay: 3000")
    owners = Owners(anywhere(max_delay_s=3600.0, retries=3), tmp_path, "http://a.test/1", count=1)
    tasks = Tasks(owners, [0])
    until(lambda: site.paths("a.test")[-1:] == [path])
    tasks.wanted[0].set()
    running = next(iter(service._RUNNING.values()))
    until(lambda: all(work.released for work in running.crawler._works))
    free.set()
    assert isinstance(tasks.join()[0], Released)
    assert len(observations.read(tmp_path)) == 0  # no outcome: another attempt was left


def test_a_hop_of_a_task_that_is_wanted_back_joins_no_queue(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """Its host was asked before, and is to be left alone for an hour."""
    free, asked = threading.Event(), list[str]()

    def hop(path: str) -> web.Handler:
        async def answer(writer: Any) -> None:
            asked.append(path)
            while len(asked) == 2 and not free.is_set():
                await asyncio.sleep(0.005)
            writer.write(web.redirect(f"http://www.a.test{path}"))
            await writer.drain()

        return answer

    site.robots("www.a.test", "User-agent: *\nCrawl-delay: 3000")
    for path in ("/1", "/2"):
        site.route("a.test", path, hop(path))
    links = ["http://a.test/1", "http://a.test/2"]
    owners = Owners(anywhere(max_delay_s=3600.0), tmp_path, *links, count=1)
    tasks = Tasks(owners, [0])
    until(lambda: len(asked) == 2 and site.paths("www.a.test") == ["/robots.txt"])
    tasks.wanted[0].set()
    running = next(iter(service._RUNNING.values()))
    until(lambda: all(work.released for work in running.crawler._works))
    free.set()
    assert isinstance(tasks.join()[0], Released)


def test_hops_that_wait_for_their_turn_are_given_back_at_once(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """The host that they lead to is in no queue of the task's own."""
    for n in range(5):
        site.route("a.test", f"/{n}", web.redirect(f"http://www.a.test/{n}"))
    site.robots("www.a.test", "User-agent: *\nCrawl-delay: 3000")
    links = [f"http://a.test/{n}" for n in range(5)]
    owners = Owners(anywhere(max_delay_s=3600.0), tmp_path, *links, count=1)
    tasks = Tasks(owners, [0])
    until(lambda: len(site.log) >= 7)  # all five pages and both robots.txt
    tasks.wanted[0].set()
    assert isinstance(tasks.join()[0], Released)


def work(folder: Path, *addresses: str) -> Work:
    """A task with a ledger of its own."""
    low, high = observations.LOWEST, observations.HIGHEST
    writer = observations.Writer(folder, low, high, label="live")
    kept = todo.kept(pa.Table.from_batches([web.links_to(*addresses)]))
    links = todo.of(kept, OBSERVATIONS.empty_table(), CrawlConfig())
    return Work(writer, writer, Notes(folder, low, high, label="live"), links)


def test_what_is_wanted_back_of_one_task_leaves_another_on_the_same_host_alone(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """Both wait for one robots.txt."""
    free = threading.Event()
    site.route("a.test", "/robots.txt", slow_page(free, web.response(404)))
    for n in range(4):
        site.page("a.test", f"/{n}", PAGE)

    async def two() -> tuple[int, int]:
        async with network.session(anywhere()) as session:
            crawler = Crawler(session, anywhere(), time.monotonic, pages.utc_now)
            one = work(tmp_path / "one", "http://a.test/0", "http://a.test/1")
            other = work(tmp_path / "other", "http://a.test/2", "http://a.test/3")
            running = asyncio.create_task(crawler.run())
            asked = [asyncio.create_task(crawler.ask(work)) for work in (one, other)]
            while not site.log:
                await asyncio.sleep(0.005)
            crawler.release(one)
            free.set()
            await asyncio.wait_for(asyncio.gather(*asked), DEADLINE_S)
            running.cancel()
            one.writer.close()
            other.writer.close()
            return one.given_back, other.given_back

    assert asyncio.run(two()) == (2, 0)
    assert len(observations.read(tmp_path / "other")) == 2
    assert set(site.paths("a.test")) == {"/robots.txt", "/2", "/3"}


def test_what_goes_wrong_is_raised_in_every_task(
    site: web.Site, anywhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners, named = made(site, anywhere(min_delay_s=0.02), tmp_path, hosts=3, each=50)
    append, count = observations.Writer.append, [0]

    def full(self: Any, *row: Any) -> None:
        count[0] += 1
        if count[0] > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *row)

    with monkeypatch.context() as poor:
        poor.setattr(observations.Writer, "append", full)
        ended = Tasks(owners, named).join()
    assert all(isinstance(end, OSError) and end.errno == errno.ENOSPC for end in ended.values())
    assert service._RUNNING == {}
    # and the next one goes on with what is durable
    kept = {row["url"] for row in observations.read(tmp_path).to_pylist()}
    before = len(site.log)
    assert {page["outcome"] for page in owners.crawl().values()} == {"ok"}
    again = {f"http://{hit.host}{hit.path}" for hit in site.log[before:]}
    assert kept and kept.isdisjoint(again)


def test_a_task_that_comes_when_the_crawler_has_failed_gets_a_new_one(
    site: web.Site, anywhere: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.page("a.test", "/", PAGE)
    config, ledger = anywhere(), tmp_path
    with service.shared(config, ledger, time.monotonic, pages.utc_now) as failed:
        failed._loop.call_soon_threadsafe(lambda: failed.crawler.turns._group.create_task(broken()))

        async def broken() -> None:
            raise OSError("the disk is gone")

        until(lambda: failed.failure is not None)
        failed._thread.join(DEADLINE_S)
        with pytest.raises(OSError, match="the disk is gone"):
            failed.ask(None)  # type: ignore[arg-type]
        assert crawl(config, tmp_path, "http://a.test/")["http://a.test/"]["outcome"] == "ok"


def test_a_task_that_is_interrupted_leaves_nothing_in_flight_behind_it(
    site: web.Site, anywhere: Settings, tmp_path: Path
) -> None:
    """The others go on; what was in flight for it ends before its ledger is closed."""
    owners, named = made(site, anywhere(min_delay_s=0.02), tmp_path, hosts=2, each=40)
    first, second = named
    raised: list[BaseException] = []

    def interrupted() -> bool:
        if sum(hit.host == named[first] for hit in site.log) > 5:
            raise KeyboardInterrupt
        return False

    def ask() -> None:
        try:
            links = [owners.links[first]]
            list(pages.ask(links, str(tmp_path), owners.config, wanted_back=interrupted))
        except KeyboardInterrupt as error:
            raised.append(error)

    others = Tasks(owners, [second])
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(DEADLINE_S)
    assert raised and isinstance(others.join()[second], list)
    assert not list(tmp_path.glob("*.open")) and not list(tmp_path.glob("*.claim"))
    asked = Counter((hit.host, hit.path) for hit in site.log if hit.path != "/robots.txt")
    assert len(observations.read(tmp_path)) == sum(asked.values())
    assert owners.crawl() and set(Counter(
        (hit.host, hit.path) for hit in site.log if hit.path != "/robots.txt"
    ).values()) == {1}  # fmt: skip


def test_it_begins_with_the_first_task_and_ends_with_the_last(
    anywhere: Settings, tmp_path: Path
) -> None:
    def threads() -> int:
        return sum(thread.name == "crawler" for thread in threading.enumerate())

    before = threads()
    how = (anywhere(), tmp_path, time.monotonic, pages.utc_now)
    with service.shared(*how) as one:
        with service.shared(*how) as other:
            assert one is other and threads() == before + 1
        assert threads() == before + 1
        with service.shared(anywhere(), tmp_path / "..", *how[2:]) as elsewhere:
            assert elsewhere is not one
    assert threads() == before and service._RUNNING == {}


@pytest.mark.parametrize("wrong", [{"user_agent": ""}, {"ca_file": "/nowhere/ca.pem"}])
def test_settings_with_which_nobody_should_be_asked_begin_nothing(
    site: web.Site, anywhere: Settings, tmp_path: Path, wrong: dict[str, object]
) -> None:
    for _ in range(2):
        with pytest.raises(BadInput, match=rf"crawl\.{next(iter(wrong))}"):
            crawl(anywhere(**wrong), tmp_path, "http://a.test/")
    assert list(site.log) == [] and service._RUNNING == {}
