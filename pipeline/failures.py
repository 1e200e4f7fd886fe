"""Every way in which the shell fails, in one tree.

    BadInput        the user's input is wrong: exit 2
    WorkFailed      work could not be done: exit 1
      TaskFailed    a task's function raised
      Changed       a dump or an archive is not the one whose digest was taken
      Damaged       a file that we wrote is gone or is not as we wrote it
      Held          another process writes to the root
      Unreachable   there is no Ray at the address
      GangFailed    a rank of the training raised

That a page cannot be had is no failure: it is a row with an outcome.
"""


class BadInput(ValueError):
    """The user's input is wrong: one line that names the path in the tree or the file."""


class WorkFailed(Exception):
    """Work could not be done: one line that says what, where and what to do."""


class Damaged(WorkFailed):
    """A file that we wrote is gone, or is not as we wrote it: which one, and what to remove."""


class Changed(WorkFailed):
    """A dump or an archive is not the one whose digest was taken."""


class Held(WorkFailed):
    """Another process writes to this root."""


class Unreachable(WorkFailed):
    """There is no Ray at the address that was given."""


class GangFailed(WorkFailed):
    """A rank of the training raised."""


class TaskFailed(WorkFailed):
    """A task raised: which one, and what."""

    def __init__(self, name: str, phase: str, index: int, cause: BaseException) -> None:
        super().__init__(name, phase, index, cause)
        self.task = (name, phase, index)
        self.cause = cause

    def __str__(self) -> str:
        name, phase, index = self.task
        told = type(self.cause) is RuntimeError or isinstance(self.cause, WorkFailed)
        kind = "" if told else f"{type(self.cause).__name__}: "
        what = f"{kind}{self.cause}"
        return f"{name}{'' if phase == 'main' else f' ({phase})'}, task {index}: {what}"
