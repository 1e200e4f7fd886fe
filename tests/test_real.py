"""The same program on real input: genuine dumps, and real pages replayed from an archive."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from crawl import canonical, warc
from pipeline import state

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared/data"
RECIPE = str(ROOT / "recipes/archive.toml")

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not on this machine")


def webtext(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def column(root: Path, dataset: str, name: str) -> list:
    batches = list(state.datasets(root)[dataset].all([name]))
    return pa.Table.from_batches(batches)[name].to_pylist() if batches else []


@pytest.mark.parametrize("month, posts, keys", [("2005-06", 83, 83), ("2005-07", 757, 754)])
def test_a_genuine_dump_loses_no_submission(tmp_path: Path, month: str, posts: int, keys: int):
    dump = SHARED / f"reddit/RS_v2_{month}.xz"
    words = (RECIPE, f"root={tmp_path}", f"crawl.submissions=['{dump}']", "crawl.min_karma=3")
    webtext("rebuild", *words, "crawl.karma_rule=any", "--until", "links", "--local")
    scores = dict(
        zip(column(tmp_path, "submissions", "post_id"), column(tmp_path, "submissions", "score"),
            strict=True)
    )  # fmt: skip
    liked = {post for post, score in scores.items() if score >= 3}
    assert len(liked) == posts
    outcomes = column(tmp_path, "links", "outcome")
    named = column(tmp_path, "links", "submissions")
    enough = [
        names for names, outcome in zip(named, outcomes, strict=True) if outcome != "below_karma"
    ]
    assert len(enough) == keys
    assert liked <= {name for names in enough for name in names}
    assert {name for names in named for name in names} == scores.keys()


@pytest.mark.slow
def test_real_pages_become_a_corpus_tokens_and_a_model(tmp_path: Path):
    """The 966 pages of an archive, and no socket."""
    archive = str(SHARED / "web/wcxb-dev.warc.zst")
    words = (
        RECIPE,
        f"root={tmp_path}",
        f"crawl.submissions=['{SHARED / 'reddit/RS_wcxb_made.zst'}']",
        f"crawl.archives=['{archive}']",
    )
    webtext("rebuild", *words)
    run = state.datasets(tmp_path)
    counts = {name: dataset.manifest.counts for name, dataset in run.items()}
    archived = {canonical.url_key(r.target) for r in warc.records(archive, 1 << 24) if r.target}
    assert "over_18" not in run["submissions"].manifest.left_out
    assert len(archived) == 966
    assert set(column(tmp_path, "links", "url_key")) >= archived
    assert counts["pages"]["source"]["archive"] == 966
    # seven say themselves that they are not to be indexed, or not to be used for AI
    assert counts["pages"]["outcome"]["ok"] == 959 and counts["pages"]["outcome"]["opted_out"] == 7
    assert counts["documents"]["outcome"]["ok"] > 900
    assert counts["corpus"]["verdict"]["kept"] > 500
    webtext("train", *words, "--local")
    (metrics,) = (tmp_path / "training").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert len(lines) == 20 and lines[-1]["loss"] < lines[0]["loss"]
    assert json.loads(webtext("audit", *words, "--json"))["holds"]
