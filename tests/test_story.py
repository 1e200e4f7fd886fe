"""The whole story on a web of a hundred pages: one root hash, whatever happens on the way."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import laws, state, store
from tests import story
from tests.story import Story, root_hash

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with story.told(tmp_path_factory.mktemp("web")) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(told: Story, tmp_path_factory) -> tuple[Path, str]:
    """A run with Ray and one worker, and its root hash."""
    root = tmp_path_factory.mktemp("undisturbed")
    return root, root_hash(told.run("rebuild", root, "workers=1"))


def test_every_link_ends_somewhere_and_every_outcome_occurs(undisturbed):
    run = state.datasets(undisturbed[0])
    counts = {name: dataset.manifest.counts for name, dataset in run.items()}
    assert {"ok", "http_error", "not_html", "timeout", "robots_disallowed", "too_large"} <= set(
        counts["pages"]["outcome"]
    )
    assert {"ok", "no_page", "empty"} <= set(counts["documents"]["outcome"])
    assert {"kept", "below_karma"} < set(counts["links"]["outcome"])
    assert {"kept", "dropped"} == set(counts["corpus"]["verdict"])
    assert "duplicate" in counts["corpus"]["rule"]
    assert run["pages"].manifest.rows == counts["links"]["outcome"]["kept"]
    assert run["tokens"].manifest.rows == counts["corpus"]["verdict"]["kept"]


@pytest.mark.parametrize("words", [["--local"], ["workers=4", "crawl.shards=5"]])
def test_the_root_hash_is_the_same_for_any_executor_workers_and_shards(
    told: Story, undisturbed, tmp_path: Path, words: list[str]
):
    assert root_hash(told.run("rebuild", tmp_path, *words)) == undisturbed[1]


def test_whatever_ends_a_rebuild_it_goes_on_to_the_same_root_hash(
    told: Story, undisturbed, tmp_path: Path
):
    with told.started("rebuild", tmp_path, "workers=2") as process:
        story.wait_until(process, lambda: story.reports(tmp_path) >= 1)
        story.freeze(process)  # it must not have crawled all before the other has asked
        refused = told.run("rebuild", tmp_path, code=1)
        assert f"is held by `webtext rebuild` (process {process.pid} on" in refused
        assert len(refused.splitlines()) == 1
        story.kill_all(process)
    pages = len(told.served.requests)
    with told.started("rebuild", tmp_path, "workers=2") as process:
        story.wait_until(process, lambda: len(told.served.requests) > pages + 5)
        assert story.crawls(process)
        process.kill()  # in the middle of the crawl; its workers see that themselves
    with told.started("rebuild", tmp_path, "workers=2") as process:
        lease = tmp_path / "lease.json"  # names the process once it can hear Ctrl-C
        story.wait_until(
            process,
            lambda: f'"pid": {process.pid},' in lease.read_text() and story.reports(tmp_path) >= 6,
        )
        process.send_signal(signal.SIGINT)
        assert story.interrupted(process)
    with told.started("rebuild", tmp_path, "workers=2") as process:
        story.wait_until(process, lambda: story.reports(tmp_path) >= 13)
        story.kill_all(process)
    assert root_hash(told.run("rebuild", tmp_path, "workers=2")) == undisturbed[1]
    assert not list(tmp_path.rglob("*.parquet.*tmp"))


def test_a_second_rebuild_asks_nothing_and_makes_nothing(told: Story, undisturbed):
    root, expected = undisturbed
    asked = len(told.served.requests)

    def files() -> dict[Path, int]:
        found = [path for path in root.rglob("*") if path.is_file() and path.name != "lease.json"]
        return {path: path.stat().st_mtime_ns for path in found}

    before = files()
    assert root_hash(told.run("rebuild", root, "workers=1")) == expected
    assert files() == before
    assert len(told.served.requests) == asked


def test_a_changed_setting_makes_what_stands_on_it_stale_and_fetches_nothing_again(
    told: Story, undisturbed, tmp_path: Path
):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    first = Counter((r.host, r.path) for r in told.served.requests)
    rows = json.loads(told.run("status", tmp_path, "dedup.threshold=0.7", "--json"))
    assert [row["dataset"] for row in rows if row["status"] != "whole"] == [
        "duplicates", "corpus", "tokens",
    ]  # fmt: skip
    output = told.run("rebuild", tmp_path, "--local", "dedup.threshold=0.7", "crawl.timeout_s=4")
    assert "duplicates is made anew: dedup.threshold 0.8 -> 0.7" in output
    assert "corpus is made anew: duplicates is made anew" in output
    assert Counter((r.host, r.path) for r in told.served.requests) == first
    output = told.run("rebuild", tmp_path, "--local", "crawl.min_karma=1")
    assert "links is made anew: crawl.min_karma 3 -> 1" in output
    asked = Counter((r.host, r.path) for r in told.served.requests) - first
    of_origins = {"/robots.txt", "/.well-known/tdmrep.json"}
    pages = {page for page in asked if page[1] not in of_origins}
    assert pages and not pages & set(first)
    before = Counter((r.host, r.path) for r in told.served.requests)
    (tmp_path / "more.txt").write_text("http://a-page-in-no-dump.test/here\n")
    more = f"crawl.submissions=['{told.dump}', '{tmp_path}/more.txt']"
    output = told.run("rebuild", tmp_path, "--local", "crawl.min_karma=1", more)
    assert "submissions is made anew: input files: 1 added, 0 gone" in output
    asked = Counter((r.host, r.path) for r in told.served.requests) - before
    assert {host for host, _ in asked} == {"a-page-in-no-dump.test"}


def test_the_laws_hold_and_the_report_is_one_offline_file(told: Story, undisturbed):
    root, _ = undisturbed
    found = json.loads(told.run("audit", root, "--json"))
    assert found["holds"]
    verdicts = {law["number"]: law["verdict"] for law in found["laws"]}
    assert verdicts == {
        "1": "holds", "2": "holds", "3": "holds", "4": "holds", "4b": "holds", "5": "holds",
        "4c": "not checked", "5b": "not checked", "6": "not checked",
    }  # fmt: skip
    html = (root / "report.html").read_text()
    assert len(html) < 5_000_000
    for asks in ('src="http', "src='http", "@import", "cdn."):
        assert asks not in html
    assert json.loads((root / "report.json").read_text())["laws"]


def test_why_tells_each_end_of_a_story(told: Story, undisturbed):
    root, _ = undisturbed
    run = state.datasets(root)
    ends = {
        "in the corpus": laws.query(run["corpus"], "select url from rows where verdict = 'kept'"),
        "dropped from the corpus by duplicate": laws.query(
            run["corpus"], "select url from rows where rule = 'duplicate'"
        ),
        "ends in pages: http_error": laws.query(
            run["pages"], "select url from rows where outcome = 'http_error'"
        ),
        "ends in links: below_karma": laws.query(
            run["links"], "select fetch_url from rows where outcome = 'below_karma'"
        ),
        "no submission": [("http://nobody-links-here.test/",)],
    }
    for end, urls in ends.items():
        done = subprocess.run(
            [*command("why"), story.RECIPE, urls[0][0], f"root={root}"],
            capture_output=True, text=True, cwd=story.ROOT, check=True,
        )  # fmt: skip
        assert end in done.stdout.splitlines()[-1]


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", name]


def test_a_broken_law_is_told_and_exits_1(told: Story, undisturbed, tmp_path: Path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    (path, *_) = state.datasets(tmp_path)["corpus"].files()
    table, written = pq.read_table(path), path.read_bytes()
    path.write_bytes(written[: len(written) // 2])
    output = told.run("audit", tmp_path, code=1)
    assert "3  broken" in output and "is not as it was written" in output
    pq.write_table(table.slice(1), path)
    folder = path.parent
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for file in manifest["files"]:
        file["digest"] = store.digest_of(folder / file["name"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    output = told.run("audit", tmp_path, code=1)
    assert "1  broken" in output and "2  broken" in output and "3  holds" in output


def test_a_run_of_other_settings_is_not_read_for_this_recipe(told: Story, undisturbed):
    root, _ = undisturbed
    for command in ("audit", "train", "evaluate"):
        refused = told.run(command, root, "dedup.threshold=0.6", code=2)
        assert "duplicates is stale (dedup.threshold 0.8 -> 0.6)" in refused


def test_a_full_disk_ends_in_one_line_and_a_resumable_state(
    told: Story, undisturbed, tmp_path: Path
):
    with story.disk(tmp_path / "disk", size="192k") as disk:
        # not short of space from the beginning, but full on the way
        full = "crawl.min_free_gb=0"
        output = told.run("rebuild", disk / "run", full, code=1)
        assert "the disk is full" in output.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert root_hash(told.run("rebuild", disk / "run", full, "--local")) == undisturbed[1]
