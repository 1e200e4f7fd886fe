"""What politeness takes is told before anybody is asked, and holds nobody up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crawl import steering
from crawl.config import CrawlConfig
from pipeline.bounded import Bounded


def test_a_steering_file_that_goes_bad_ends_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / steering.FILE).write_text("state = 1")
    submitted: list[Any] = []
    executor: Any = SimpleNamespace(submit=submitted.append)
    links: Any = SimpleNamespace(shards=0)
    task: Any = SimpleNamespace(
        stage=SimpleNamespace(makes="pages"), step=SimpleNamespace(together=2), phase="before"
    )
    Bounded(executor, tmp_path / "observations", CrawlConfig(), links).submit(task)
    assert submitted == [task]
    assert "crawl: 0 pages of 0 hosts" in capsys.readouterr().err
