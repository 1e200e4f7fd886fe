"""Dumps of every form through the whole machinery: cut, killed, added to."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import zstandard

from crawl import lines, parts, submissions
from crawl.schema import BadInput
from pipeline import cli, cluster, rebuild, scatter, state, why
from pipeline.failures import TaskFailed
from pipeline.plan import plan
from tests.pipeline.dump_run import (
    CONTENT,
    FORMS,
    LINES,
    POSTS,
    Counting,
    links,
    pack,
    plainly,
    recipe,
    told,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, dict[str, int]]:
    return plainly(tmp_path_factory.mktemp("expected"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_links(tmp_path: Path, form: str, expected, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)  # whatever can be cut is
    monkeypatch.setattr(scatter, "SPILL_BYTES", 40000)
    monkeypatch.setattr(submissions, "BATCH_ROWS", 100)
    monkeypatch.setattr(lines, "BLOCK", 5000)
    made = recipe(tmp_path, pack(tmp_path / f"RS.{form}"))
    links(made)
    assert told(made) == expected
    tasks = state.datasets(Path(made.root))["submissions"].manifest.tasks
    assert (tasks > 1) is (form in ("ndjson", "frames.zst", "zst_blocks"))


@pytest.mark.slow
def test_ray_and_this_process_give_the_same_from_the_same_parts(
    tmp_path: Path, expected, monkeypatch
):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    made = recipe(tmp_path, pack(tmp_path / "RS.frames.zst"))
    Path(made.root).mkdir()
    with cluster.executor("local", 2) as executor:
        rebuild.rebuild(plan(made)[:2], Path(made.root), 4, executor, lambda *_: None)
    assert told(made) == expected


KILLED = """
import sys
from crawl import lines, submissions
from pipeline import config, make, scatter
lines.BLOCK, submissions.BATCH_ROWS, scatter.SPILL_BYTES = 2000, 10, 2000
made = config.load(sys.argv[1])
list(make.make(made, address=None, local=True, until="links", remake=None))
"""


def test_a_reader_that_is_killed_goes_on_inside_the_dump(tmp_path: Path, expected):
    made = recipe(tmp_path, pack(tmp_path / "RS.zst"))
    runs = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "recipe.toml")], cwd=ROOT
        )
        before, deadline = runs, time.monotonic() + 60
        while runs < before + 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            runs = len(list(Path(made.root).glob("submissions/*/underway/00000/*.json")))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert runs > before, "it began anew, or did not go on"
    read = lines.blocks
    places: list[int] = []

    def watched(part, place=0):
        places.append(place)
        return read(part, place)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("crawl.dumps.blocks", watched)
        links(made)
    assert places == [max(places)] and places[0] > 0
    assert told(made) == expected
    assert not list(Path(made.root).glob("submissions/*/underway/*"))


def test_next_months_dump_is_read_and_no_other(tmp_path: Path):
    whole = [*LINES[:1000], *LINES[500:1500]], LINES[1400:]  # a post can stand in two dumps
    dumps = [tmp_path / f"RS_{number}.zst" for number in range(2)]
    for dump, some in zip(dumps, whole, strict=True):
        dump.write_bytes(zstandard.ZstdCompressor().compress(b"\n".join(some)))
    links(recipe(tmp_path, dumps[0]))
    made, executor = recipe(tmp_path, *dumps), Counting()
    rebuild.rebuild(plan(made)[:2], Path(made.root), 4, executor, lambda *_: None)
    assert executor.ran.count("submissions") == 1
    (tmp_path / "at-once").mkdir()
    at_once = recipe(tmp_path / "at-once", *dumps)
    links(at_once)
    assert told(made) == told(at_once)
    assert told(made)[2]["repeated"] == 490  # 10 of the 500 are over 18


def test_what_could_not_be_read_is_told_with_file_and_place(tmp_path: Path):
    dump = tmp_path / "RS.zst"
    some = [LINES[0], b'{"id": "torn', LINES[1], *[b"<html>"] * 7]
    dump.write_bytes(zstandard.ZstdCompressor().compress(b"\n".join(some)))
    said = links(recipe(tmp_path, dump))
    faults = [line for line in said if line.startswith("submissions: ")]
    assert faults[0] == f"submissions: {dump}: byte {len(LINES[0]) + 1:,}: malformed"
    assert len(faults) == 6 and faults[-1].startswith("submissions: more that could not be read")


@pytest.mark.parametrize(
    "post, outcome",
    [
        ({"url": "http://imgur.com/abc", "score": 50}, "media"),
        ({"url": "http://a.com/x?id=1", "score": 1}, "below_karma"),
        ({"url": "http://a.com/x.pdf", "score": 50}, "file_type"),
    ],
)
def test_why_a_link_is_not_followed_is_told_with_its_submissions(
    tmp_path: Path, post: dict[str, object], outcome: str
):
    posts = [POSTS[1], POSTS[2] | post | {"id": "x"}, POSTS[3] | post | {"id": "y", "score": 1}]
    (tmp_path / "RS").write_text("\n".join(map(json.dumps, posts)))
    made = recipe(tmp_path, tmp_path / "RS")
    links(made)
    found = why.story(made, f"{post['url']}#part")
    assert found["verdict"] == f"ends in links: {outcome}"
    (link,) = found["datasets"]["links"]
    assert (link["outcome"], link["submissions"]) == (outcome, ["x", "y"])
    rows = found["datasets"]["submissions"]
    assert [(row["post_id"], row["score"]) for row in rows] == [("x", post["score"]), ("y", 1)]
    assert all(row["day"] and row["subreddit"] for row in rows)


def test_a_sample_is_one_of_links_and_the_whole_holds_it(tmp_path: Path, expected):
    dump = pack(tmp_path / "RS.zst")
    links(recipe(tmp_path, dump))
    whole = {b for one in state.datasets(tmp_path / "run")["links"].all() for b in one["link_id"]}
    links(recipe(tmp_path, dump, sample=0.25))
    some = {b for one in state.datasets(tmp_path / "run")["links"].all() for b in one["link_id"]}
    assert some < whole and 0.1 < len(some) / len(whole) < 0.4


PACKED = zstandard.ZstdCompressor().compress(CONTENT)
DAMAGED = gzip.compress(CONTENT)[:2000] + b"\xa5" * 500 + gzip.compress(CONTENT)[2500:]


@pytest.mark.parametrize(
    "name, content, code, words",
    [
        ("RS.zst", PACKED[:-50], 1, "ends too early, after [0-9,]+ bytes; get it anew"),
        ("RS.zst", PACKED[:9], 2, "ends before its first line"),
        ("RS.gz", DAMAGED, 2, "is damaged: "),
        ("RS.gz", PACKED, 2, "does not begin as its name says"),
        ("RS", b"", 2, "is empty"),
        ("RC", b'{"id": "c", "body": "b", "link_id": "t3_1", "parent_id": "t3_1"}', 2, "holds co"),
        ("RS", b"<html>\n<p>no such file", 2, "holds neither submissions"),
        ("RS", b'{"name": "webtext"}', 2, "is no dump"),
        ("RS.csv", b"a,b\n1,2\n", 2, "holds neither submissions"),
        ("RS.parquet", b"PAR1 and no more", 2, "cannot be read as a table: "),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line_that_names_the_file(
    tmp_path: Path, name: str, content: bytes, code: int, words: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((BadInput, TaskFailed)) as raised:
        links(recipe(tmp_path, tmp_path / name))
    said, ends_with = cli.verdict(raised.value)
    assert ends_with == code and said and "\n" not in said
    assert re.search(rf"{re.escape(str(tmp_path / name))}: {words}", said), said


def test_a_dump_that_ends_too_early_gives_all_its_whole_lines_if_that_is_accepted(tmp_path: Path):
    (tmp_path / "RS.zst").write_bytes(PACKED[:-50])
    made = recipe(tmp_path, tmp_path / "RS.zst", accept_truncated=True)
    said = links(made)
    _, _, left_out = told(made)
    assert left_out["truncated"] == 1
    rows = state.datasets(Path(made.root))["submissions"].manifest.rows
    assert 0 < rows < len(POSTS) - 60
    assert any("RS.zst: after " in line and line.endswith("bytes: truncated") for line in said)


@pytest.mark.parametrize("shards", [1, 3, 16])
def test_links_are_the_same_for_any_shards_and_order(tmp_path: Path, shards: int, expected):
    halves = [tmp_path / "RS_b", tmp_path / "RS_a"]
    for path, some in zip(halves, (LINES[:1700], LINES[1300:]), strict=True):
        path.write_bytes(b"\n".join(reversed(some)))
    made = recipe(tmp_path, *halves, shards=shards)
    links(made)
    assert told(made)[:2] == expected[:2]


@pytest.mark.parametrize("left", [".json", ".arrow"])
def test_runs_that_were_half_removed_are_read_again(tmp_path: Path, monkeypatch, left, expected):
    monkeypatch.setattr(scatter, "SPILL_BYTES", 40000)
    monkeypatch.setattr(submissions, "BATCH_ROWS", 100)
    monkeypatch.setattr(lines, "BLOCK", 5000)
    made = recipe(tmp_path, pack(tmp_path / "RS.zst"))
    with monkeypatch.context() as patched:
        patched.setattr(scatter.Scatter, "finish", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            links(made)
    runs = sorted(Path(made.root).glob("submissions/*/underway/00000/*"))
    assert len(runs) > 4
    for path in runs[: len(runs) // 2]:
        if path.suffix != left:
            path.unlink()
    links(made)
    assert told(made) == expected


def test_an_attempt_that_comes_late_takes_what_the_other_has_done(tmp_path: Path, expected):
    made = recipe(tmp_path, pack(tmp_path / "RS.zst"))
    finish = scatter.Scatter.finish

    def late(self, *arguments):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(scatter.Scatter, "finish", finish)
            links(made)  # the attempt that was taken for lost ends first
        raise FileNotFoundError("its runs are gone")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scatter.Scatter, "finish", late)
        patched.setattr("pipeline.make.lease.hold", lambda *_: nullcontext())
        links(made)
    assert told(made) == expected


def test_a_dump_of_which_little_is_kept_tells_how_far_it_is_and_goes_on(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(lines, "BLOCK", 5000)
    monkeypatch.setattr(submissions, "BATCH_BLOCKS", 4)
    monkeypatch.setattr(scatter, "SPILL_READ", 30000)
    monkeypatch.setattr(scatter, "BEAT_S", 0.0)
    made = recipe(tmp_path, pack(tmp_path / "RS.ndjson"), subreddits=["s3"], since="2011-04-01")
    told_bytes = []
    tell = scatter.Beat.tell
    with monkeypatch.context() as patched:
        patched.setattr(
            scatter.Beat,
            "tell",
            lambda self, account: (tell(self, account), told_bytes.append(account.bytes_read)),
        )
        patched.setattr(scatter.Scatter, "finish", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            links(made)
    assert len(told_bytes) > 10 and len(set(told_bytes)) > 3
    assert len(list(Path(made.root).glob("submissions/*/underway/00000/*.json"))) > 2


def test_a_truncated_dump_is_counted_once_however_often_it_is_killed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(scatter, "SPILL_BYTES", 1)
    (tmp_path / "RS.zst").write_bytes(PACKED[:-50])
    made = recipe(tmp_path, tmp_path / "RS.zst", accept_truncated=True)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(scatter.Scatter, "finish", lambda *_: sys.exit("killed"))
            with pytest.raises(SystemExit):
                links(made)
    links(made)
    manifest = state.datasets(Path(made.root))["submissions"].manifest
    assert manifest.left_out["truncated"] == 1
    assert len([one for one in manifest.faults if one.endswith("truncated")]) == 1
