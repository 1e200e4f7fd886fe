"""One rebuild: what it asks for before it begins, what it finds again, what it does not believe."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import submissions
from crawl.schema import BadInput
from pipeline import cli, leaves
from pipeline.failures import TaskFailed
from tests.pipeline import small_run


def test_nobody_crawls_without_a_name_and_all_else_can_be_done(tmp_path: Path):
    anonymous = small_run.config(tmp_path, "crawl.live=true")
    with pytest.raises(BadInput, match=r"^crawl\.user_agent: is needed"):
        small_run.rebuild(anonymous)
    assert not Path(anonymous.root).exists()
    assert "links" in small_run.rebuild(anonymous, until="links")[-1]


def after_digest(patched: pytest.MonkeyPatch, path: Path, act: Callable[[], object]) -> None:
    """Do something once the file's digest is taken."""
    digest = leaves.digest

    def then(*arguments: Any) -> list[leaves.Leaf]:
        found = digest(*arguments)
        if str(path) in {leaf.path for leaf in found}:
            act()
        return found

    patched.setattr(leaves, "digest", then)


@pytest.mark.parametrize("changed", ["links.txt", "pages.warc.gz"])
def test_another_time_of_change_of_the_same_content_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    made, path = small_run.config(tmp_path), tmp_path / changed
    after_digest(monkeypatch, path, lambda: os.utime(path, (0, 0)))
    assert small_run.rebuild(made)[-1].startswith("root hash ")


@pytest.mark.parametrize("changed", ["links.txt", "pages.warc.gz"])
def test_a_file_that_goes_after_its_digest_is_told_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    made, path = small_run.config(tmp_path), tmp_path / changed
    after_digest(monkeypatch, path, path.unlink)
    with pytest.raises(TaskFailed) as raised:
        small_run.rebuild(made)
    assert cli.verdict(raised.value) == (f"{path}: cannot be opened: no such file", 2)


@pytest.mark.parametrize("changed", ["links.txt", "pages.warc.gz"])
def test_a_file_that_changes_after_its_digest_is_not_taken_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    made, path = small_run.config(tmp_path), tmp_path / changed
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        after_digest(patched, path, lambda: path.write_bytes(before + before))
        with pytest.raises(TaskFailed, match=rf"{path}: has changed since its digest was taken"):
            small_run.rebuild(made)
    path.write_bytes(before)
    *_, table, last = small_run.rebuild(made)
    assert last.startswith("root hash ")
    rows = {row.split()[0]: row.split()[2] for row in table.splitlines()[1:]}
    assert (rows["submissions"], rows["pages"]) == ("11", "11")


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made, path = small_run.config(tmp_path), tmp_path / "links.txt"
    read = submissions.read

    def grows(*arguments: Any) -> Iterator[pa.RecordBatch]:
        with path.open("a") as file:
            file.write("\nhttp://one-more.test/")
        return read(*arguments)

    monkeypatch.setattr(submissions, "read", grows)
    with pytest.raises(TaskFailed, match=rf"{path}: has changed since its digest was taken"):
        small_run.rebuild(made)


def test_a_whole_dataset_without_its_reports_is_found_again(tmp_path: Path):
    made = small_run.config(tmp_path)
    said, root = small_run.rebuild(made), Path(made.root)
    (root / "run.json").unlink()
    for report in root.glob("pages/*/reports/*.json"):
        report.unlink()
    assert small_run.rebuild(made) == said
    assert "pages" in json.loads((root / "run.json").read_bytes())["datasets"]
