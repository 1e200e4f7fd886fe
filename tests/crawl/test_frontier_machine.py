"""The frontier against a model of it, whatever is told in whatever order: hypothesis looks for the
sequence of steps that breaks politeness, loses a job or asks one twice."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crawl.frontier import Ask, Done, Drop, Frontier, Wait
from crawl.pace import Pace

HOSTS = st.sampled_from(["a.test", "b.test", "c.test", "d.test", "e.test"])
MOMENTS = st.floats(0.0, 40.0)


@dataclass
class Model:
    """What is known of a host: nothing is ever forgotten here."""

    queue: deque[int] = field(default_factory=deque)
    free_at: float = -math.inf
    ended_at: float = -math.inf
    began: float = math.inf
    crawl_delay_s: float = 0.0
    latency_s: float = 0.0
    failures: int = 0
    closed: bool = False


class Turns(RuleBasedStateMachine):
    """Each rule tells the frontier something and keeps its own books beside."""

    @initialize(
        limit=st.integers(1, 4),
        max_host_s=st.sampled_from([math.inf, 60.0]),
        min_delay_s=st.sampled_from([1.0, 0.0]),
        max_failures=st.integers(1, 4),
    )
    def begin(self, limit: int, max_host_s: float, min_delay_s: float, max_failures: int) -> None:
        self.pace = Pace(
            min_delay_s=min_delay_s,
            max_delay_s=16.0,
            latency_factor=2.0,
            max_retry_after_s=30.0,
            back_off_s=3.0,
            max_failures=max_failures,
            max_host_s=max_host_s,
        )
        self.limit = limit
        self.turns: Frontier[int] = Frontier(self.pace, limit)
        self.models = {name: Model() for name in "abcde"}
        self.in_flight: dict[str, int] = {}
        self.now = 0.0
        self.made = 0
        self.settled: Counter[int] = Counter()

    def model(self, host: str) -> Model:
        return self.models[host[0]]

    def jobs(self, count: int) -> range:
        self.made += count
        return range(self.made - count, self.made)

    def delay_s(self, model: Model) -> float:
        return self.pace.delay_s(model.crawl_delay_s, model.latency_s)

    @rule(host=HOSTS, count=st.integers(0, 6), later_s=st.none() | MOMENTS)
    def add(self, host: str, count: int, later_s: float | None) -> None:
        jobs = self.jobs(count)
        if later_s is None:
            self.turns.add(host, jobs)
        else:
            self.turns.add(host, jobs, not_before=self.now + later_s)
            self.model(host).free_at = max(self.model(host).free_at, self.now + later_s)
        self.model(host).queue.extend(jobs)

    @rule(host=HOSTS, count=st.integers(0, 3))
    def again(self, host: str, count: int) -> None:
        jobs = self.jobs(count)
        self.turns.again(host, iter(jobs))
        self.model(host).queue.extendleft(reversed(jobs))

    @rule(host=HOSTS, delay_s=st.floats(0.0, 30.0))
    def slow(self, host: str, delay_s: float) -> None:
        self.turns.slow(host, delay_s)
        model = self.model(host)
        model.crawl_delay_s = max(model.crawl_delay_s, delay_s)
        bounded_s = max(self.pace.min_delay_s, min(delay_s, self.pace.max_delay_s))
        model.free_at = max(model.free_at, model.ended_at + bounded_s)

    @rule(host=HOSTS, later_s=MOMENTS)
    def hold(self, host: str, later_s: float) -> None:
        self.turns.hold(host, self.now + later_s)
        self.model(host).free_at = max(self.model(host).free_at, self.now + later_s)

    @rule(host=HOSTS)
    def drain(self, host: str) -> None:
        assert self.turns.drain(host) == list(self.model(host).queue)
        self.settled.update(self.model(host).queue)
        self.model(host).queue.clear()

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        latency_s=st.floats(0.0, 12.0),
        failed=st.booleans(),
        retry_after_s=st.none() | st.floats(0.0, 50.0),
        back=st.booleans(),
    )
    def end(
        self,
        data: st.DataObject,
        latency_s: float,
        failed: bool,
        retry_after_s: float | None,
        back: bool,
    ) -> None:
        host = data.draw(st.sampled_from(sorted(self.in_flight)))
        model, job = self.model(host), self.in_flight.pop(host)
        if back:
            self.turns.again(host, [job])
            model.queue.appendleft(job)
        else:
            self.settled[job] += 1
        self.turns.ended(
            host, self.now, latency_s=latency_s, failed=failed, retry_after_s=retry_after_s
        )
        model.latency_s = latency_s
        model.ended_at = self.now
        pause_s = self.delay_s(model)
        model.failures = model.failures + 1 if failed else 0
        if failed:
            pause_s = max(pause_s, min(3.0 * 2 ** (model.failures - 1), 16.0))
        if retry_after_s is not None:
            pause_s = max(pause_s, min(retry_after_s, 30.0))
        model.free_at = max(model.free_at, self.now + pause_s)
        model.closed |= model.failures >= self.pace.max_failures

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def unused(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(sorted(self.in_flight)))
        job = self.in_flight.pop(host)
        self.turns.again(host, [job])
        self.model(host).queue.appendleft(job)
        self.turns.unused(host)
        if self.model(host).ended_at == -math.inf:
            self.model(host).began = math.inf

    @rule()
    def step(self) -> None:
        step = self.turns.next(self.now)
        if isinstance(step, Ask):
            self.check_ask(step)
        elif isinstance(step, Drop):
            self.check_drop(step)
        else:
            self.check_rest(step)

    def free(self) -> dict[str, Model]:
        """Hosts that may be asked by the model."""
        return {
            name: model
            for name, model in self.models.items()
            if model.queue and not model.closed and f"{name}.test" not in self.in_flight
        }

    def check_ask(self, step: Ask[int]) -> None:
        model = self.model(step.host)
        assert len(self.in_flight) < self.limit
        assert step.host not in self.in_flight
        assert not model.closed and self.now >= model.free_at
        assert model.began + self.pace.max_host_s > self.now
        ready = [other for other in self.free().values() if other.free_at <= self.now]
        # what a forgotten host's latency was is not known any more
        least = [len(m.queue) * self.pace.delay_s(m.crawl_delay_s, 0.0) for m in ready]
        assert len(model.queue) * self.delay_s(model) >= max(least) * 16 / 17 - 0.001
        assert model.queue.popleft() == step.job
        model.began = min(model.began, self.now)
        self.in_flight[step.host] = step.job

    def check_drop(self, step: Drop[int]) -> None:
        model = self.model(step.host)
        late = model.began + self.pace.max_host_s <= self.now
        assert model.closed or late
        assert self.turns.lost(step.host) or late
        model.closed = True
        assert model.queue.popleft() == step.job
        self.settled[step.job] += 1

    def check_rest(self, step: Wait | Done) -> None:
        left = sum(len(model.queue) for model in self.models.values())
        assert isinstance(step, Done) == (not left and not self.in_flight)
        if isinstance(step, Done) or len(self.in_flight) == self.limit:
            return
        assert isinstance(step, Wait)
        first = min((model.free_at for model in self.free().values()), default=None)
        if step.until is None:
            assert first is None and self.in_flight
        else:
            assert first is not None and self.now < step.until <= first

    @invariant()
    def books_agree(self) -> None:
        counts = self.turns.counts()
        open_hosts = self.free()
        assert counts.ready + counts.waiting == len(open_hosts)
        assert counts.in_flight == len(self.in_flight)
        assert counts.jobs == sum(len(model.queue) for model in self.models.values())
        for name, model in self.models.items():
            assert self.turns.left(f"{name}.test") == len(model.queue)
        running = [m for name, m in self.models.items() if not m.closed and m.queue]
        most = max((len(m.queue) * self.delay_s(m) for m in running), default=0.0)
        least = max(
            (len(m.queue) * self.pace.delay_s(m.crawl_delay_s, 0.0) for m in running), default=0.0
        )
        assert least <= self.turns.bound_s() <= most

    def teardown(self) -> None:
        """To the end: all that was made is settled, each once, in bounded time."""
        if not hasattr(self, "turns"):
            return
        for _ in range(10 * self.made + 100):
            for host in list(self.in_flight):
                self.settled[self.in_flight.pop(host)] += 1
                self.turns.ended(host, self.now, latency_s=0.0)
                model = self.model(host)
                model.ended_at, model.latency_s, model.failures = self.now, 0.0, 0
                model.free_at = max(model.free_at, self.now + self.delay_s(model))
            step = self.turns.next(self.now)
            if isinstance(step, Ask):
                self.check_ask(step)
            elif isinstance(step, Drop):
                self.check_drop(step)
            elif isinstance(step, Wait):
                assert step.until is not None and step.until > self.now
                self.now = step.until
            else:
                assert self.settled == Counter(range(self.made))
                return
        pytest.fail("the frontier does not come to an end")


Turns.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestTurns = Turns.TestCase
