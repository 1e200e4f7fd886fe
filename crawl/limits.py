"""What this machine can give to a crawl: open files and disk space, looked at before and while.

Rule: what the machine lacks is never told of a host. Too few files are refused before anything is
asked; a disk that fills up ends the crawl while there is still room to end it well.
"""

import os
import resource
import shutil
from pathlib import Path

from crawl.config import CrawlConfig
from crawl.schema import BadInput

SPARE_FILES = 128
"""For Python, name servers and what else a process holds."""
FILES_A_TASK = 6
"""Two segments of two files each, a claim, the notes."""
LOW_FILES = SPARE_FILES // 2
"""So few left that nobody is asked until there are more."""


class Short(RuntimeError):
    """This machine has less than the crawl needs to go on: one line that says of what."""


def require(config: CrawlConfig, folder: Path, tasks: int = 0) -> None:
    """BadInput where the connections asked for need more files than may be open; Short where the
    disk is nearly full. The limit of files is raised for so many tasks as well, as far as it can
    be. `folder`: the ledger, or where it will be."""
    least = config.connections + SPARE_FILES
    wanted = least + FILES_A_TASK * tasks
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < least:
        raise BadInput(
            f"crawl.connections: {config.connections} need {least} open files, and {hard} are "
            "allowed: raise the limit (ulimit -n), or ask for fewer"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    require_space(config, folder)


def require_space(config: CrawlConfig, folder: Path) -> None:
    """Short where less is free than the recipe wants kept, in the ledger or the journal."""
    for place in (folder, *([Path(config.journal)] if config.journal else [])):
        standing = next(path for path in (place, *place.absolute().parents) if path.exists())
        if shutil.disk_usage(standing).free < config.min_free_gb * 1e9:
            raise Short(
                f"{place}: less than crawl.min_free_gb = {config.min_free_gb:g} GB are free; free "
                "some space, then run the same command again"
            )


def scarce(in_flight: int) -> bool:
    """Whether so few files are left to this process that nobody should be asked until there are
    more. Short where none of those it holds will come back: nothing is in flight."""
    left = files_left()
    if left is None or left >= LOW_FILES:
        return False
    if not in_flight:
        raise Short(
            f"{left} more files may be opened, too few to ask anybody: raise the limit (ulimit "
            "-n), or lower crawl.shards or crawl.connections; then run the same command again"
        )
    return True


def files_left() -> int | None:
    """How many more files this process may open; None where the system does not say."""
    try:
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  -- names alone, quicker
    except OSError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - opened
