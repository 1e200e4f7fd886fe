"""How near a crawl comes to what politeness allows: the real frontier over a web that is drawn.

Usage: python benchmarks/politeness.py [HOSTS] [URLS]. Pages are spread over hosts as WebText's
domains are (shared/data/reddit/webtext_top_domains.txt and the power law fitted to it), none with
more than `max_pages_per_host`; latencies, failures and Crawl-delays are drawn by a seed; the clock
is turned by hand, from one event to the next. Three bounds, in seconds, that no schedule beats:

    politeness   max over hosts (pages x delay), with the delays that held between its pages
    host         the same with what the host itself takes: its latencies, its failures, their pauses
    connections  all latencies, shared by the connections

Each case runs in a process of its own, whose peak memory counts whole. Fails where a promise is
broken.
"""

import heapq
import math
import resource
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # where `crawl` is the package, not the script

from crawl.config import CrawlConfig
from crawl.frontier import Ask, Done, Drop, Frontier, Wait
from crawl.hosts import Host, LongestFirst
from crawl.pace import Pace, bound_s

DOMAINS = Path(__file__).parents[2] / "shared/data/reddit/webtext_top_domains.txt"
RECIPE = CrawlConfig()
JOBS = 20
"""Bits of a job below its host's number."""
DRAWS = 1 << 16
"""Chances drawn for single requests, over and over."""


@dataclass(frozen=True)
class Case:
    """A web and a crawl. `size`: the share of HOSTS and URLS. `promise`: to which bound the
    makespan is held; None: to none, shown beside."""

    name: str
    promise: str | None
    size: float = 1.0
    crawl_delays: bool = True
    failures: bool = True
    connections: int = RECIPE.connections
    longest_first: bool = True


CASES = (
    Case("as drawn", "politeness"),
    Case("no failure, no Crawl-delay", "all", 1.0, False, False, 64),
    Case("a tenth of it", "all", 0.1, False, False, 64),
    Case("a tenth, first come first served", None, 0.1, False, False, 64, False),
)
BOUNDS = ("politeness", "host", "connections", "all")
MOST, MOST_MIB = 1.15, 1024.0
"""Makespan by bound, and the peak of the whole process."""


@dataclass(frozen=True)
class Web:
    """By host: its pages, seconds it takes on the average, its Crawl-delay (0: none), and the share
    of its requests that fail, after how many seconds (0: as the others take)."""

    pages: "array[int]"
    latency_s: "array[float]"
    crawl_delay_s: "array[float]"
    failing: "array[float]"
    fails_after_s: "array[float]"


@dataclass
class Result:
    """Seconds of the simulated clock; all else counts."""

    makespan_s: float
    politeness_s: float
    host_s: float
    connections_s: float
    requests: int
    settled: Counter[str]
    lost: int
    hurried: int
    """Requests that came before their host's delay had passed, or beside another to it."""
    missing: int
    """Pages that were not settled exactly once."""

    def bounds_s(self) -> dict[str, float]:
        """The bounds by name; `all` is the greatest of them."""
        bounds = (self.politeness_s, self.host_s, self.connections_s)
        return dict(zip(BOUNDS, (*bounds, max(bounds)), strict=True))


def spread(head: list[int], hosts: int, urls: int) -> list[int]:
    """Pages by host, longest first: as many as `urls` in all; one at least, and at most what of ten
    million `max_pages_per_host` is. Beyond the head goes the power law that fits its second half
    best."""
    most = max(1, RECIPE.max_pages_per_host * urls // 10**7)
    ranks = np.arange(1, hosts + 1, dtype=float)
    known = np.array(sorted(head, reverse=True)[:hosts], dtype=float)
    half = len(known) // 2
    slope, level = np.polyfit(np.log(ranks[half : len(known)]), np.log(known[half:]), 1)
    weights = np.exp(level) * ranks**slope
    weights[: len(known)] = known

    def scaled(factor: float) -> np.ndarray:
        return np.maximum(1, np.minimum(most, np.rint(weights * factor)))  # type: ignore[no-any-return]

    low, high = 0.0, urls / weights[-1]
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if scaled(middle).sum() <= urls else (low, middle)
    pages = scaled(low).astype(int)
    pages[hosts - int(urls - pages.sum()) :] += 1  # what rounding left over
    return [int(count) for count in pages]


def drawn(pages: list[int], case: Case, seed: int = 1) -> Web:
    """A web. Latencies: log-normal, a quarter of a second in the median, over 2 s for one host in a
    hundred, over 7 s for one in ten thousand. One host in ten is dead: half of these have no name,
    half let wait until the time is over. Three in a hundred fail every tenth time. One in twenty
    has a Crawl-delay, of 1 to 60 s."""
    chance = np.random.default_rng(seed)
    hosts = len(pages)
    latency = np.minimum(0.25 * np.exp(0.9 * chance.standard_normal(hosts)), RECIPE.timeout_s)
    kind = chance.random(hosts)
    failing = np.select([kind < 0.10, kind < 0.13], [1.0, 0.1], 0.0) * case.failures
    after = np.select([kind < 0.05, kind < 0.10], [0.1, RECIPE.connect_timeout_s], 0.0)
    delays = chance.choice([1.0, 2.0, 5.0, 10.0, 10.0, 20.0, 30.0, 60.0], hosts)
    slow = (chance.random(hosts) < 0.05) * case.crawl_delays
    return Web(
        array("l", pages),
        array("d", latency.tolist()),
        array("d", (delays * slow).tolist()),
        array("d", failing.tolist()),
        array("d", after.tolist()),
    )


class FirstCome(LongestFirst[int]):
    """What the longest host first is compared with: who has waited longest."""

    def __init__(self) -> None:
        super().__init__()
        self._line: deque[Host[int]] = deque()

    def put(self, host: Host[int]) -> None:
        if host.place < 0:
            self.count += 1
            host.place = 0
            self._line.append(host)

    def take(self) -> Host[int] | None:
        while self._line:
            host = self._line.popleft()
            if host.place == 0:
                self.leave(host)
                return host
        return None


class Simulation:
    """One crawl of a web, from the first request to the last answer. A host's first turn goes to
    its robots.txt, as the crawler's does."""

    def __init__(self, web: Web, turns: Frontier[int], pace: Pace, seed: int = 2) -> None:
        self.web, self.turns, self.pace = web, turns, pace
        chance = np.random.default_rng(seed)
        factors = np.exp(0.5 * chance.standard_normal(DRAWS) - 0.125)  # 1 on the average
        self.factors = array("d", factors.tolist())
        self.chances = array("d", chance.random(DRAWS - 1).tolist())
        hosts = len(web.pages)
        self.robots = bytearray(hosts)  # 1: known
        self.busy = bytearray(hosts)
        self.failures = bytearray(hosts)  # in a row
        self.free_at = array("d", [-math.inf]) * hosts  # by our own reckoning
        self.delay_s = array("d", [0.0]) * hosts
        self.delays_s = array("d", [0.0]) * hosts  # that held between its pages
        self.took_s = array("d", [0.0]) * hosts  # with latencies, failures and pauses
        self.paused_s = array("d", [0.0]) * hosts
        self.left = array("l", web.pages)
        self.attempts: dict[int, int] = {}
        self.settled: Counter[str] = Counter()
        self.requests = self.hurried = self.jobs = 0
        self.served_s = 0.0

    def run(self, connections: int) -> Result:
        """Until nothing is left."""
        for number, count in enumerate(self.web.pages):
            first = number << JOBS
            self.turns.add(f"host-{number}.example", range(first, first + count))
        now, flying = 0.0, list[tuple[float, str, int, float, bool]]()
        turns = self.turns
        while not isinstance(step := turns.next(now), Done):
            if isinstance(step, Ask):
                latency_s, failed = self.begin(step.job, now)
                heapq.heappush(flying, (now + latency_s, step.host, step.job, latency_s, failed))
            elif isinstance(step, Drop):
                self.settle(step.job, "dropped")
            elif flying and (step.until is None or flying[0][0] <= step.until):
                now, host, job, latency_s, failed = heapq.heappop(flying)
                self.end(host, job, now, latency_s, failed)
            else:
                assert step.until is not None and step.until > now, "the clock stands still"
                now = step.until
        return self.result(now, connections)

    def begin(self, job: int, now: float) -> tuple[float, bool]:
        """(seconds that the request will take, whether it will fail)."""
        number, web = job >> JOBS, self.web
        if self.busy[number] or now < self.free_at[number]:
            self.hurried += 1
        self.busy[number] = 1
        self.requests += 1
        failed = self.chances[self.requests % (DRAWS - 1)] < web.failing[number]
        latency_s = web.latency_s[number] * self.factors[self.requests % DRAWS]
        if failed and web.fails_after_s[number]:
            latency_s = web.fails_after_s[number]
        self.delays_s[number] += self.delay_s[number]
        self.took_s[number] += self.paused_s[number] + latency_s
        self.served_s += latency_s
        return latency_s, failed

    def end(self, host: str, job: int, now: float, latency_s: float, failed: bool) -> None:
        number, turns = job >> JOBS, self.turns
        self.busy[number] = 0
        attempts = self.attempts.pop(job, 0)
        if failed:
            if attempts < RECIPE.retries:
                self.attempts[job] = attempts + 1
                turns.again(host, [job])
            else:
                self.settle(job, "failed")
        elif not self.robots[number]:
            self.robots[number] = 1
            if delay_s := self.web.crawl_delay_s[number]:
                turns.slow(host, delay_s)
            turns.again(host, [job])
        else:
            self.settle(job, "ok")
        # one failure in two names the moment itself
        asked_s = 30.0 if failed and self.requests & 1 else None
        turns.ended(host, now, latency_s=latency_s, failed=failed, retry_after_s=asked_s)
        self.reckon(number, now, latency_s, failed, asked_s or 0.0)

    def reckon(
        self, number: int, now: float, latency_s: float, failed: bool, asked_s: float
    ) -> None:
        """Our own account of how long the host is to be left alone."""
        known_s = self.web.crawl_delay_s[number] if self.robots[number] else 0.0
        delay_s = pause_s = self.pace.delay_s(known_s, latency_s)
        if failed:
            self.failures[number] += 1
            delay_s = 0.0  # it came after no page
            pause_s = max(pause_s, self.pace.pause_s(self.failures[number]), asked_s)
        else:
            self.failures[number] = 0
        self.delay_s[number], self.paused_s[number] = delay_s, pause_s
        self.free_at[number] = now + pause_s

    def settle(self, job: int, outcome: str) -> None:
        self.settled[outcome] += 1
        self.left[job >> JOBS] -= 1
        self.jobs += job

    def result(self, now: float, connections: int) -> Result:
        missing = sum(abs(count) for count in self.left)
        all_jobs = sum(
            count * (number << JOBS) + count * (count - 1) // 2
            for number, count in enumerate(self.web.pages)
        )
        return Result(
            makespan_s=now,
            politeness_s=max(self.delays_s),
            host_s=max(self.took_s),
            connections_s=self.served_s / connections,
            requests=self.requests,
            settled=self.settled,
            lost=self.turns.counts().lost,
            hurried=self.hurried,
            missing=missing or int(self.jobs != all_jobs),
        )


def head(path: Path = DOMAINS) -> list[int]:
    """Links of WebText's first thousand domains."""
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def simulated(case: Case, hosts: int, urls: int, seed: int = 1) -> Result:
    """The case at this size."""
    pages = spread(head(), hosts, urls)
    pace = Pace.of(RECIPE)
    turns: Frontier[int] = Frontier(pace, case.connections)
    if not case.longest_first:
        turns._ready = FirstCome()
    return Simulation(drawn(pages, case, seed), turns, pace).run(case.connections)


def turns_per_second(hosts: int, turns: int = 2_000_000) -> float:
    """Turns that the frontier gives in a CPU second, with all hosts in it: `next` until nothing may
    be asked, and `ended`; all answers take the same time, so that little else is reckoned."""
    frontier: Frontier[int] = Frontier(Pace.of(RECIPE), RECIPE.connections)
    for number, count in enumerate(spread(head(), hosts, 10 * hosts)):
        frontier.add(f"host-{number}.example", range(count))
    flying: deque[tuple[float, str]] = deque()
    now, left = 0.0, min(turns, 5 * hosts)
    began = time.process_time()
    while left:
        step = frontier.next(now)
        if isinstance(step, Ask):
            flying.append((now + 0.4, step.host))
            left -= 1
            continue
        assert isinstance(step, Wait)
        if flying and (step.until is None or flying[0][0] <= step.until):
            now, host = flying.popleft()
            frontier.ended(host, now, latency_s=0.4)
        else:
            assert step.until is not None
            now = step.until
    return min(turns, 5 * hosts) / (time.process_time() - began)


def one(number: int, hosts: int, urls: int) -> None:
    """Runs a case in this process and prints what came of it."""
    case = CASES[number]
    began = time.process_time()
    result = simulated(case, int(hosts * case.size), int(urls * case.size))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bounds = result.bounds_s()
    ratios = {name: result.makespan_s / seconds for name, seconds in bounds.items()}
    print(f"{case.name:34}{result.makespan_s / 3600:>9.2f}", end="")
    print("".join(f"{bounds[name] / 3600:>9.2f}{ratios[name]:>7.3f}" for name in BOUNDS), end="")
    print(f"{result.requests:>12,}{time.process_time() - began:>7.0f}{mib:>7.0f}")
    settled = ", ".join(f"{count:,} {name}" for name, count in sorted(result.settled.items()))
    print(f"    {settled}; {result.lost:,} hosts lost")
    if result.hurried or result.missing:
        sys.exit(f"{result.hurried} requests came too early, {result.missing} pages are missing")
    if case.promise and ratios[case.promise] > MOST:
        sys.exit(f"{case.name}: over {MOST} times the bound, {case.promise}")
    if mib > MOST_MIB:
        sys.exit(f"{case.name}: over {MOST_MIB:.0f} MiB")


def main(hosts: int, urls: int) -> None:
    """All cases, one after the other."""
    before_s = bound_s(spread(head(), hosts, urls), RECIPE.min_delay_s)
    print(f"{hosts:,} hosts, {urls:,} pages; the politeness bound before any robots.txt is known:")
    print(f"{before_s / 3600:.2f} h")
    print(f"{'hours, and makespan by bound':34}{'makespan':>9}", end="")
    print("".join(f"{name:>16}" for name in BOUNDS), end="")
    print(f"{'requests':>12}{'CPU s':>7}{'MiB':>7}", flush=True)
    for number in range(len(CASES)):
        words = [sys.executable, __file__, "--one", str(number), str(hosts), str(urls)]
        if subprocess.run(words, check=False).returncode:
            sys.exit(1)
    print(f"the frontier alone: {turns_per_second(hosts):,.0f} turns per CPU second")


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        one(*(int(word) for word in words[1:]))
    elif not DOMAINS.exists():
        sys.exit(f"{DOMAINS} is not here")
    else:
        main(*(int(word) for word in [*words, *["1000000", "10000000"][len(words) :]]))
