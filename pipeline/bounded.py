"""An executor that tells what politeness takes before the first task that asks the web, and what
the crawl took when the last of them is done.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa

from crawl import bound, status, steering
from crawl.bound import Bound
from crawl.config import CrawlConfig
from crawl.schema import LINKS, BadInput
from crawl.steering import Steering
from pipeline import crawling
from pipeline.manifest import Report
from pipeline.rebuild import Executor
from pipeline.shard import Task
from pipeline.stage import MAIN
from pipeline.store import Dataset

SCHEMA = pa.schema([LINKS.field(name) for name in bound.COLUMNS])


class Bounded:
    """Hands on to another executor what it is given."""

    def __init__(
        self,
        executor: Executor,
        ledger: Path,
        config: CrawlConfig,
        links: Dataset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`links`: whole by the time that somebody is asked."""
        self._executor, self._ledger, self._config = executor, ledger, config
        self._links, self._clock = links, clock
        self._bound = Bound()
        self._began: float | None = None

    def free(self, task: Task) -> bool:
        """Whether there is room for a task of this kind."""
        return self._executor.free(task)

    def submit(self, task: Task) -> None:
        """Take a task; the first that asks is told of before it begins."""
        if task.stage.makes == "pages":
            if task.step.together > 1 and self._began is None:
                self._begin()
            if task.phase == MAIN and self._began is not None:
                self._end(self._began)
        self._executor.submit(task)

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        """The next task that is done."""
        return self._executor.wait(limit_s)

    def _begin(self) -> None:
        ranges = (
            pa.Table.from_batches(self._links.read(shard, bound.COLUMNS), SCHEMA)
            for shard in range(self._links.shards)
        )
        try:
            said = steering.read(self._ledger.parent / steering.FILE)
        except BadInput:  # who asks looks at it himself, and tells; this is a sum
            said = Steering()
        self._bound = bound.of(ranges, self._ledger, self._config, said)
        click.echo(crawling.before(self._bound), err=True)
        self._began = self._clock()

    def _end(self, began: float) -> None:
        found = status.told(self._ledger, time.time())
        if found.pages:
            click.echo(crawling.after(self._clock() - began, self._bound, found), err=True)
        self._began = None
