"""What this machine can give to a crawl: open files and disk space, looked at before and while.

Rule: what the machine lacks is never told of a host. Too few files are refused before anything is
asked; a disk that fills up ends the crawl while there is still room to end it well.
"""

import errno
import os
import resource
import shutil
from pathlib import Path

from crawl.config import CrawlConfig
from crawl.schema import BadInput

SPARE_FILES = 128
"""For Python, the ledger, name servers and what else a process holds."""
FILES_A_TASK = 4
"""A WARC file, a journal, a claim, the notes."""


def require(config: CrawlConfig, folder: Path, tasks: int) -> None:
    """BadInput where the connections asked for need more files than may be open; OSError (ENOSPC)
    where the disk is nearly full. The soft limit of files is raised as far as needed."""
    needed = config.connections + FILES_A_TASK * tasks + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise BadInput(
                f"crawl.connections: {config.connections} need {needed} open files, and {hard} are "
                "allowed: raise the limit (ulimit -n), or ask for fewer"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    require_space(config, folder)


def require_space(config: CrawlConfig, folder: Path) -> None:
    """OSError (ENOSPC) where less is free than the recipe wants kept."""
    if shutil.disk_usage(folder).free < config.min_free_gb * 1e9:
        text = f"less than crawl.min_free_gb = {config.min_free_gb:g} GB are free"
        raise OSError(errno.ENOSPC, text, str(folder))


def files_left() -> int | None:
    """How many more files this process may open; None where the system does not say."""
    try:
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  -- names alone, quicker
    except OSError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - opened
