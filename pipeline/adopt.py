"""What another generation made of the same leaf in the same way is taken over, not made again.

So next month's dump is read, and the years before it are not. Files are linked where the disk can,
else copied: the generations stay independent of each other.
"""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pipeline import shard
from pipeline.failures import Damaged
from pipeline.manifest import Report
from pipeline.shard import Task
from pipeline.store import digest_of, replacing, write_json

UNLINKED = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES, errno.ENOSYS)
"""What file systems answer that have no hard links, or not there."""


def adopt(tasks: Iterable[Task]) -> int:
    """Do those of the tasks of a dataset that one of its other generations has done; how many."""
    left = {task.makes: task for task in tasks if task.makes}
    done = 0
    if not left:
        return 0
    own = next(iter(left.values())).folder
    for folder in sorted(path for path in own.parent.iterdir() if path != own):
        for path in sorted(folder.glob("reports/*.json")):
            report = _report(folder, int(path.stem))
            if report and report.makes in left and _stands(folder, report):
                _take(folder, report, left.pop(report.makes))
                done += 1
    return done


def _report(folder: Path, index: int) -> Report | None:
    try:
        return shard.report_of(folder, index)
    except Damaged:
        return None  # of a generation that nobody reads: then it is made anew


def _stands(folder: Path, report: Report) -> bool:
    """Whether its files are what the report says: they were written in another run."""
    paths = [(folder / file.name, file.digest) for file in report.files]
    return all(path.exists() and digest_of(path) == digest for path, digest in paths)


def _take(folder: Path, report: Report, task: Task) -> None:
    name = f"{task.index:05d}"
    files = []
    for file in report.files:
        own = name + file.name.removeprefix(f"{report.index:05d}")
        with replacing(task.folder / own) as temporary:
            _copy(folder / file.name, temporary)
        files.append(msgspec.structs.replace(file, name=own))
    taken = msgspec.structs.replace(report, index=task.index, files=files)
    write_json(task.folder / "reports" / f"{name}.json", msgspec.to_builtins(taken))


def _copy(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno not in UNLINKED:
            raise
        shutil.copyfile(path, to)
