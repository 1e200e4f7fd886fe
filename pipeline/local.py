"""Run tasks in this process, one after another: for debugging and unit tests."""

from collections import deque

from pipeline import shard
from pipeline.failures import TaskFailed
from pipeline.manifest import Report
from pipeline.shard import Task


class Local:
    """An executor without machines."""

    capacity = 1

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Take a task; it runs when it is waited for."""
        self._tasks.append(task)

    def wait(self) -> tuple[Task, Report]:
        """Run the oldest task."""
        task = self._tasks.popleft()
        try:
            return task, shard.run(task)
        except Exception as error:
            raise TaskFailed(*task.key, error) from error
