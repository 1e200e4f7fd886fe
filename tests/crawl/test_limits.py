"""What a machine lacks: told before anybody is asked, and in time while it runs."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from crawl import limits
from crawl.config import CrawlConfig

ROOT = Path(__file__).parents[2]
REQUIRE = """
import resource, sys
from pathlib import Path
from crawl import limits
from crawl.config import CrawlConfig
soft, hard, connections, tasks = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    limits.require(CrawlConfig(connections=connections, min_free_gb=0), Path("."), tasks)
    print("ok", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except Exception as error:
    print(type(error).__name__, error)
"""


def require(soft: int, hard: int, connections: int, tasks: int) -> str:
    """What a process with these limits of files is told."""
    words = [str(one) for one in (soft, hard, connections, tasks)]
    done = subprocess.run(
        [sys.executable, "-c", REQUIRE, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.strip()


def test_the_soft_limit_is_raised_as_far_as_needed() -> None:
    assert require(300, 4000, 256, 0) == f"ok {256 + limits.SPARE_FILES}"
    wanted = 256 + limits.SPARE_FILES + limits.FILES_A_TASK * 10
    assert require(300, 4000, 256, 10) == f"ok {wanted}"
    assert require(3000, 4000, 256, 10) == "ok 3000"  # never lowered


def test_many_tasks_raise_it_as_far_as_the_hard_one_goes_and_are_no_reason_to_refuse() -> None:
    assert require(300, 1000, 256, 1024) == "ok 1000"


def test_connections_that_cannot_be_had_are_refused_by_their_key() -> None:
    told = require(300, 1000, 5000, 4)
    assert told.startswith("BadInput crawl.connections: 5000 need 5128 open files, and 1000 are")


def test_a_nearly_full_disk_is_told_with_its_folder(tmp_path: Path) -> None:
    config = CrawlConfig(min_free_gb=1e9)
    folder = tmp_path / "not" / "made" / "yet"
    with pytest.raises(limits.Short) as raised:
        limits.require(config, folder)
    assert str(raised.value).startswith(
        f"{folder}: less than crawl.min_free_gb = 1e+09 GB are free"
    )
    limits.require_space(CrawlConfig(min_free_gb=0), folder)


def test_the_journal_s_disk_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(path: object) -> object:
        used = 1 if str(path).startswith(str(tmp_path / "journal")) else 10**12
        return type("usage", (), {"free": used})

    (tmp_path / "journal").mkdir()
    monkeypatch.setattr(limits.shutil, "disk_usage", free)
    limits.require_space(CrawlConfig(), tmp_path)
    with pytest.raises(limits.Short, match=f"^{tmp_path}/journal: "):
        limits.require_space(CrawlConfig(journal=f"{tmp_path}/journal"), tmp_path)


def test_few_files_hold_the_crawl_until_one_comes_back_or_end_it_if_none_will(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "files_left", lambda: limits.LOW_FILES)
    assert not limits.scarce(0)
    monkeypatch.setattr(limits, "files_left", lambda: limits.LOW_FILES - 1)
    assert limits.scarce(1)
    with pytest.raises(limits.Short, match="63 more files may be opened"):
        limits.scarce(0)
    monkeypatch.setattr(limits, "files_left", lambda: None)
    assert not limits.scarce(0)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc here")
def test_files_that_are_open_are_counted() -> None:
    before = limits.files_left()
    with open(os.devnull), open(os.devnull):  # noqa: PTH123
        assert before is not None and limits.files_left() == before - 2
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
