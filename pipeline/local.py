"""Run tasks in this process, one after another, those of a step that waits for the world together:
for debugging and unit tests."""

import threading
from collections import deque
from queue import Empty, SimpleQueue

from pipeline import shard
from pipeline.failures import TaskFailed
from pipeline.manifest import Report
from pipeline.shard import Key, Task
from pipeline.stage import GivenBack, Turn

Ended = tuple[Task, Report | BaseException]


class Local:
    """An executor without machines."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._threads: dict[Key, tuple[threading.Thread, Turn]] = {}
        self._ended: SimpleQueue[Ended] = SimpleQueue()

    def free(self, task: Task) -> bool:
        """Whether there is room for a task of this kind."""
        if task.step.together == 1:
            return not self._tasks
        return sum(key[:2] == task.key[:2] for key in self._threads) < task.step.together

    def submit(self, task: Task) -> None:
        """Take a task; it runs when it is waited for, or in a thread from now on."""
        if task.step.together == 1:
            self._tasks.append(task)
            return
        turn, ended = Turn(), self._ended

        def work() -> None:
            try:
                ended.put((task, shard.run(task, turn)))
            except BaseException as error:  # noqa: BLE001  -- raised by the thread that waits
                ended.put((task, error))

        thread = threading.Thread(target=work, name="-".join(map(str, task.key)), daemon=True)
        self._threads[task.key] = thread, turn
        thread.start()

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        """The next task that is done: of those together, else the oldest, which runs now. None
        where none is within so many seconds."""
        try:
            while True:
                task, ended = self._next(limit_s)
                if isinstance(ended, Report):
                    return task, ended
                if not isinstance(ended, GivenBack):
                    raise TaskFailed(*task.key, ended) from ended
                self.submit(task)
        except Empty:
            return None
        except BaseException:
            self.close()
            raise

    def _next(self, limit_s: float | None) -> Ended:
        if not self._tasks or not self._ended.empty():
            assert self._threads, "nothing to wait for"
            task, ended = self._ended.get(timeout=limit_s)
            del self._threads[task.key]
            return task, ended
        task = self._tasks.popleft()
        try:
            return task, shard.run(task)
        except Exception as error:  # noqa: BLE001  -- raised where it is asked for
            return task, error

    def close(self) -> None:
        """End what runs in threads, as soon as it can stop at a whole place."""
        self._tasks.clear()
        for _, turn in self._threads.values():
            turn.want_back()
        for thread, _ in self._threads.values():
            while thread.is_alive():
                thread.join(timeout=1.0)  # in slices: a join without end would not hear Ctrl-C
        self._threads.clear()
        self._ended = SimpleQueue()
