"""A crawl that is steered while it runs, or that its machine fails: it ends at a whole place."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from crawl import limits, observations, pages, service, status, steering
from crawl.config import CrawlConfig
from crawl.schema import PageOutcome
from crawl.status import Status
from crawl.steering import Steering
from tests import web

from .conftest import Settings

DEADLINE_S = 60.0
HOSTS, PAGES = 3, 200


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_S", 0.02)


@pytest.fixture
def addresses(site: web.Site) -> list[str]:
    """More than is asked before somebody speaks."""
    for host in range(HOSTS):
        for n in range(PAGES):
            site.page(f"h{host}.web.test", f"/{n}", f"<p>page {n} of {host}")
    return [f"http://h{host}.web.test/{n}" for host in range(HOSTS) for n in range(PAGES)]


class Run:
    """A crawl in a thread; what it raised."""

    def __init__(
        self,
        config: CrawlConfig,
        folder: Path,
        addresses: list[str],
        wanted_back: Callable[[], bool] = lambda: False,
    ) -> None:
        self.ledger, self.file = folder / "observations", folder / steering.FILE
        self.links = [web.links_to(*addresses)]
        self.config, self.wanted_back = config, wanted_back
        self.raised: BaseException | None = None
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        try:
            folder, wanted_back = str(self.ledger), self.wanted_back
            list(pages.ask(self.links, folder, self.config, wanted_back=wanted_back))
        except BaseException as error:  # noqa: BLE001  -- looked at by the test
            self.raised = error

    def say(self, **told: object) -> None:
        steering.write(self.file, Steering(**told))  # type: ignore[arg-type]

    def told(self) -> Status:
        return status.told(self.ledger, time.time())

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < deadline, "it does not come about"
            assert self.thread.is_alive() or true(), f"the crawl has ended: {self.raised}"
            time.sleep(0.005)

    def ended(self) -> BaseException | None:
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        return self.raised

    def outcomes(self) -> dict[str, str]:
        found = [row for batch in pages.fetch(self.links, str(self.ledger), self.config)
                 for row in batch.to_pylist()]  # fmt: skip
        return {row["url"]: row["outcome"] for row in found}


@pytest.fixture
def begin(
    site: web.Site, settings: Settings, tmp_path: Path, addresses: list[str]
) -> Iterator[Callable[..., Run]]:
    """Begins crawls; none is left."""
    runs = []

    def begun(asked: int = 20, **keys: object) -> Run:
        """A crawl that has asked for some pages by now."""
        run = Run(settings(**keys), tmp_path, addresses)
        runs.append(run)
        before = len(site.log)
        run.thread.start()
        run.until(lambda: len(site.log) >= before + asked)
        return run

    yield begun
    for run in runs:
        run.say(state="stop")
        run.ended()


def whole(run: Run) -> None:
    """What the ledger holds is in whole segments."""
    names = [path.name for path in run.ledger.iterdir()]
    assert not [name for name in names if name.endswith((".open", ".claim"))]


def each_once(site: web.Site) -> None:
    for host in range(HOSTS):
        asked = [path for path in site.paths(f"h{host}.web.test") if path != "/robots.txt"]
        assert sorted(asked) == sorted(f"/{n}" for n in range(PAGES))


def test_a_pause_asks_nobody_until_it_goes_on(site: web.Site, begin: Callable[..., Run]) -> None:
    run = begin()
    run.say(state="pause")
    run.until(lambda: run.told().state == "pause" and run.told().in_flight == 0)
    asked, at = len(site.log), run.told().seconds
    assert asked < HOSTS * PAGES
    run.until(lambda: run.told().seconds > at + 1.0)
    assert len(site.log) == asked
    run.say(state="run")
    assert run.ended() is None
    assert set(run.outcomes().values()) == {"ok"}
    each_once(site)


def test_a_stop_ends_what_is_in_flight_and_the_next_goes_on(
    site: web.Site, begin: Callable[..., Run]
) -> None:
    run = begin()
    run.say(state="stop")
    assert isinstance(run.ended(), service.Stopped)
    assert str(run.raised) == "stopped as asked; the same command goes on"
    whole(run)
    had = len(observations.read(run.ledger))
    asked = sum(hit.path != "/robots.txt" for hit in site.log)
    assert had == asked < HOSTS * PAGES  # each of those that were asked is there
    assert status.total(run.ledger, time.time()) is None
    run.say(state="run")
    assert begin(1).ended() is None
    each_once(site)


def test_a_stop_that_stands_asks_nobody(site: web.Site, begin: Callable[..., Run]) -> None:
    run = begin()
    run.say(state="stop")
    run.ended()
    asked = len(site.log)
    again = begin(0)
    assert isinstance(again.ended(), service.Stopped)
    assert len(site.log) == asked


def test_a_pause_can_be_stopped(begin: Callable[..., Run]) -> None:
    run = begin()
    run.say(state="pause")
    run.until(lambda: run.told().state == "pause")
    run.say(state="stop")
    assert isinstance(run.ended(), service.Stopped)
    whole(run)


def test_hosts_denied_while_it_runs_are_asked_no_more(
    site: web.Site, begin: Callable[..., Run]
) -> None:
    run = begin()
    run.say(state="run", deny=("h0.web.test", "http://h1.web.test/19"))
    run.until(lambda: run.told().outcomes.get("denied", 0) > 0)
    asked = len(site.paths("h0.web.test"))
    assert run.ended() is None
    assert len(site.paths("h0.web.test")) <= asked + 1  # one can be on its way
    found = run.outcomes()
    denied = {address for address, outcome in found.items() if outcome == "denied"}
    assert {found[address] for address in found.keys() - denied} == {"ok"}
    kept = {f"http://h0.web.test{path}" for path in site.paths("h0.web.test")}
    assert {one for one in found if one.startswith("http://h0.")} - denied <= kept
    # Those that the operator has denied are asked for once he lets them be.
    run.say(state="run")
    retried = begin(1, retry=(PageOutcome.DENIED,))
    assert retried.ended() is None
    assert set(retried.outcomes().values()) == {"ok"}
    each_once(site)


def test_a_list_of_who_is_allowed_denies_all_others(
    site: web.Site, begin: Callable[..., Run], tmp_path: Path
) -> None:
    steering.write(tmp_path / steering.FILE, Steering(allow=("h2.web.test",)))
    run = begin()
    assert run.ended() is None
    assert {hit.host for hit in site.log} == {"h2.web.test"}
    assert {one.split("/")[2] for one, outcome in run.outcomes().items() if outcome == "ok"} == {
        "h2.web.test"
    }


def test_a_bad_file_changes_nothing_and_is_told(begin: Callable[..., Run]) -> None:
    run = begin()
    run.say(state="run", deny=("h0.web.test",))
    run.until(lambda: run.told().outcomes.get("denied", 0) > 0)
    run.file.write_text('state = "halt"')
    run.until(lambda: "halt" in run.told().complaint)
    assert str(run.file) in run.told().complaint
    assert run.ended() is None
    assert {outcome for one, outcome in run.outcomes().items() if "//h0" not in one} == {"ok"}


def test_a_bad_file_at_the_beginning_lets_nobody_be_asked_until_it_can_be_read(
    site: web.Site, settings: Settings, tmp_path: Path, addresses: list[str]
) -> None:
    """As it is for a worker that takes the place of another, and for a new round."""
    run = Run(settings(), tmp_path, addresses)
    run.file.write_text('state = "halt"\ndeny = ["h0.web.test"]')
    run.thread.start()
    run.until(lambda: "halt" in run.told().complaint)
    assert run.told().state == "pause" and site.log == []
    run.say(state="run", deny=("h0.web.test",))
    assert run.ended() is None
    assert {hit.host for hit in site.log} == {"h1.web.test", "h2.web.test"}


def test_a_disk_that_fills_up_ends_it_while_there_is_room_to_end_well(
    site: web.Site, begin: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(min_free_gb=1e-9)
    with monkeypatch.context() as full:
        full.setattr(limits.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        assert isinstance(run.ended(), limits.Short)
    assert "crawl.min_free_gb" in str(run.raised) and str(run.ledger) in str(run.raised)
    whole(run)
    had = len(observations.read(run.ledger))
    assert had == sum(hit.path != "/robots.txt" for hit in site.log) < HOSTS * PAGES
    assert begin(1).ended() is None
    each_once(site)


def test_a_task_that_is_wanted_back_in_a_pause_is_given_back(
    site: web.Site, settings: Settings, tmp_path: Path, addresses: list[str]
) -> None:
    wanted = threading.Event()
    run = Run(settings(), tmp_path, addresses, wanted.is_set)
    run.say(state="pause")
    run.thread.start()
    run.until(lambda: run.told().state == "pause")
    wanted.set()
    assert isinstance(run.ended(), service.Released)
    assert site.log == []


def test_a_bound_on_bytes_slows_it(site: web.Site, begin: Callable[..., Run]) -> None:
    run = begin()
    run.say(state="run", max_bytes_per_s=1)
    seen: dict[int, float] = {}

    def at_rest() -> bool:
        """For a second of the crawler's own nothing was asked: what came is a minute's worth."""
        at = run.told().seconds
        return at > seen.setdefault(len(site.log), at) + 1.0

    run.until(at_rest)
    assert run.told().left > 0
    run.say(state="run", max_bytes_per_s=0)
    assert run.ended() is None
    each_once(site)
