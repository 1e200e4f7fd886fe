"""The machinery on a story in miniature: whole, resumed, stale, the same for any layout and
executor."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline import cli, cluster, manifest, rebuild, state
from pipeline.failures import Damaged, TaskFailed
from pipeline.local import Local
from pipeline.manifest import Report
from pipeline.shard import Task
from tests.pipeline import toy

TEXTS = ["apple ant bear\nbee apple", "# nothing\ncat apple cow bee", "dog eel ant cat"]
WINNERS = {"apple": 3, "ant": 2, "bee": 2, "bear": 1, "cat": 2, "cow": 1, "dog": 1, "eel": 1}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"text{number}" for number in range(len(TEXTS))]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_text(text)
    return paths


def make(files, root, shards=4, executor=None, tell=lambda *_: None, **settings):
    stages = toy.plan(files, root, {"least": 2} | settings)
    rebuild.rebuild(stages, root, shards, executor or Local(), tell)
    return state.inspect(stages, root, shards)


def root_hash(states) -> str:
    return manifest.root_hash({n: s.dataset.manifest.set_hash for n, s in states.items()})


class Counting(Local):
    """Counts the tasks it runs, and dies before the one at `dies_at`."""

    def __init__(self, dies_at: int = -1) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.dies_at = dies_at

    def wait(self, limit_s: float | None = None) -> tuple[Task, Report] | None:
        if len(self.ran) == self.dies_at:
            raise SystemExit("killed")
        self.ran.append(self._tasks[0].stage.makes)
        return super().wait(limit_s)


def test_every_dataset_is_whole_and_right(files, tmp_path: Path):
    states = make(files, tmp_path / "run")
    assert {entry.status for entry in states.values()} == {"whole"}
    counts = [row for b in states["counts"].dataset.all() for row in b.to_pylist()]
    assert {row["word"]: row["count"] for row in counts} == WINNERS
    assert states["counts"].dataset.manifest.counts == {"kind": {"often": 4, "rare": 4}}
    assert states["words"].dataset.manifest.left_out == {"comment": 1}
    verdicts = [row for b in states["verdicts"].dataset.all() for row in b.to_pylist()]
    by_letter = Counter(row["word"][0] for row in verdicts if row["wins"])
    assert by_letter == Counter("abcde")


def test_rows_are_sorted_and_lie_in_their_range(files, tmp_path: Path):
    counts = make(files, tmp_path / "run", shards=3)["counts"].dataset
    for shard in range(3):
        ids = [row["id"] for batch in counts.read(shard) for row in batch.to_pylist()]
        assert ids == sorted(ids)
        assert all(int.from_bytes(i[:4], "big") * 3 >> 32 == shard for i in ids)


def test_a_second_rebuild_does_nothing(files, tmp_path: Path):
    make(files, tmp_path / "run")
    executor = Counting()
    make(files, tmp_path / "run", executor=executor)
    assert executor.ran == []


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_the_root_hash_does_not_depend_on_shards_names_or_order(files, tmp_path: Path, shards: int):
    expected = root_hash(make(files, tmp_path / "run"))
    moved = [path.rename(path.with_name(f"z{path.name[::-1]}")) for path in files]
    assert root_hash(make(moved[::-1], tmp_path / "other", shards=shards)) == expected


def test_another_word_gives_another_root_hash(files, tmp_path: Path):
    expected = root_hash(make(files, tmp_path / "run"))
    files[0].write_text(TEXTS[0] + " ox")
    assert root_hash(make(files, tmp_path / "run")) != expected


@pytest.mark.parametrize("dies_at", [0, 1, 5, 9, 14])
def test_a_killed_run_goes_on_where_it_was(files, tmp_path: Path, dies_at: int):
    whole = Counting()
    expected = root_hash(make(files, tmp_path / "undisturbed", executor=whole))
    with pytest.raises(SystemExit):
        make(files, tmp_path / "run", executor=Counting(dies_at))
    (folder,) = (tmp_path / "run" / "verdicts").iterdir()
    (folder / ".00000.parquet.17.tmp").touch()  # of a task killed while it wrote
    rest = Counting()
    assert root_hash(make(files, tmp_path / "run", executor=rest)) == expected
    assert len(rest.ran) == len(whole.ran) - dies_at
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_changed_setting_makes_what_stands_on_it_stale_and_says_why(files, tmp_path: Path):
    make(files, tmp_path / "run")
    stages = toy.plan(files, tmp_path / "run", {"least": 3})
    states = state.inspect(stages, tmp_path / "run", 4)
    assert [entry.status for entry in states.values()] == ["whole", *["stale"] * 4]
    assert states["counts"].reasons == ("least 2 -> 3",)
    assert states["losers"].reasons == ("pairs is made anew",)


def test_a_new_file_is_named_as_the_reason(files, tmp_path: Path):
    make(files, tmp_path / "run")
    new = tmp_path / "text9"
    new.write_text("fox")
    states = state.inspect(
        toy.plan([*files, new], tmp_path / "run", {"least": 2}), tmp_path / "run", 4
    )
    assert states["words"].reasons == ("input files: 1 added, 0 gone",)


def test_going_back_costs_nothing(files, tmp_path: Path):
    make(files, tmp_path / "run")
    other = make(files, tmp_path / "run", least=3)
    assert state.load_run(tmp_path / "run").datasets == {
        name: entry.dataset.fingerprint for name, entry in other.items()
    }
    executor = Counting()
    states = make(files, tmp_path / "run", executor=executor)
    assert executor.ran == []
    assert state.load_run(tmp_path / "run").datasets == {
        name: entry.dataset.fingerprint for name, entry in states.items()
    }


def test_a_remake_makes_a_new_generation_and_all_that_stands_on_it(files, tmp_path: Path):
    expected = root_hash(make(files, tmp_path / "run"))
    run = state.load_run(tmp_path / "run")
    run.remakes["pairs"] = 1
    state.save_run(tmp_path / "run", run)
    executor = Counting()
    states = make(files, tmp_path / "run", executor=executor)
    assert set(executor.ran) == {"pairs", "losers", "verdicts"}
    assert root_hash(states) == expected


def test_a_torn_run_file_costs_the_run_file_alone(files, tmp_path: Path):
    root = tmp_path / "run"
    expected = root_hash(make(files, root))
    for content in ("{", "[]", '{"datasets": 3}', '{"remakes": {"pairs": "once"}}'):
        (root / "run.json").write_text(content)
        with pytest.raises(Damaged) as raised:
            state.load_run(root)
        first, _, remedy = str(raised.value).partition("; ")
        assert first.startswith(f"{root}/run.json: is damaged")
        assert remedy.startswith("remove this file alone") and str(root) not in remedy
    (root / "run.json").unlink()
    executor = Counting()
    assert root_hash(make(files, root, executor=executor)) == expected
    assert executor.ran == []


def test_a_torn_begun_file_names_its_generation(files, tmp_path: Path):
    pairs = make(files, tmp_path / "run")["pairs"].dataset
    (pairs.folder / "begun.json").write_text("[]")
    with pytest.raises(Damaged, match=rf"begun\.json: is damaged .*; remove {pairs.folder} and"):
        state.begun(pairs)
    with pytest.raises(Damaged, match=rf"remove {pairs.folder} and"):
        make(files, tmp_path / "run", least=3)
    shutil.rmtree(pairs.folder)
    make(files, tmp_path / "run", least=3)


@pytest.mark.parametrize("name", ["manifest.json", "reports/00001.json"])
def test_without_its_torn_file_a_dataset_is_mended(files, tmp_path: Path, name: str):
    states = make(files, tmp_path / "run")
    expected, pairs = root_hash(states), states["pairs"].dataset.folder
    (pairs / "manifest.json").unlink()
    (pairs / name).write_text('{"rows": 1')
    with pytest.raises(Damaged, match=f"{pairs / name}: is damaged .*; remove it and run"):
        root_hash(make(files, tmp_path / "run"))
    (pairs / name).unlink()
    executor = Counting()
    assert root_hash(make(files, tmp_path / "run", executor=executor)) == expected
    assert executor.ran == ([] if name == "manifest.json" else ["pairs"])


def test_a_task_that_reads_a_damaged_file_names_it(files, tmp_path: Path):
    counts = make(files, tmp_path / "run")["counts"].dataset
    (counts.folder / "00002.parquet").write_bytes(b"xx")
    run = state.load_run(tmp_path / "run")
    run.remakes["verdicts"] = 1
    state.save_run(tmp_path / "run", run)
    with pytest.raises(TaskFailed) as raised:
        make(files, tmp_path / "run")
    told = f"verdicts, task 2: {counts.folder}/00002.parquet: is damaged ("
    assert str(raised.value).startswith(told)
    assert cli.verdict(raised.value) == (str(raised.value), 1)


def test_what_a_task_raises_is_told_with_stage_and_shard(files, tmp_path: Path):
    files[0].write_text("explode")
    with pytest.raises(TaskFailed, match=r"counts, task \d+: a word exploded"):
        make(files, tmp_path / "run")


def test_progress_ends_at_the_whole(files, tmp_path: Path):
    told: dict[str, tuple[int, int]] = {}
    make(files, tmp_path / "run", tell=lambda name, done, total: told.update({name: (done, total)}))
    assert told == {
        "words": (3, 3), "counts": (4, 4), "pairs": (8, 8), "losers": (1, 1), "verdicts": (4, 4),
    }  # fmt: skip


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_raises_the_same_words(files, tmp_path: Path):
    here = make(files, tmp_path / "here")
    with cluster.executor(None, 2) as executor:
        there = make(files, tmp_path / "there", executor=executor)
        files[0].write_text("explode")
        with pytest.raises(TaskFailed, match=r"counts, task \d+: a word exploded"):
            make(files, tmp_path / "there", executor=executor)
    assert root_hash(here) == root_hash(there)
    for name in ("counts", "pairs", "losers"):
        digests = [{f.digest for f in run[name].dataset.manifest.files} for run in (here, there)]
        assert digests[0] == digests[1]


def test_a_run_killed_before_its_last_manifest_is_made_whole(files, tmp_path: Path):
    states = make(files, tmp_path / "run")
    expected = root_hash(states)
    for name in ("counts", "verdicts"):
        (states[name].dataset.folder / "manifest.json").unlink()
    executor = Counting()
    states = make(files, tmp_path / "run", executor=executor)
    assert executor.ran == []
    assert {entry.status for entry in states.values()} == {"whole"}
    assert root_hash(states) == expected


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"version": 2}, "version 1 -> 2"),
        ({"libraries": ("pyarrow",)}, "library pyarrow none -> "),
        ({"settings": {"least": 2, "most": 9}}, "most none -> 9"),
    ],
)
def test_another_program_makes_stale_what_it_would_make_otherwise(
    files, tmp_path: Path, change, reason: str
):
    make(files, tmp_path / "run")
    plan = [
        dataclasses.replace(stage, **change) if stage.makes == "counts" else stage
        for stage in toy.plan(files, tmp_path / "run", {"least": 2})
    ]
    found = state.inspect(plan, tmp_path / "run", 4)["counts"]
    assert found.status == "stale"
    assert found.reasons[0].startswith(reason)


def test_a_leaf_that_is_added_is_read_and_the_others_are_not(files, tmp_path: Path):
    make(files[:2], tmp_path / "run")
    counting = Counting()
    states = make(files, tmp_path / "run", executor=counting)
    assert Counter(counting.ran)["words"] == 1
    fresh = make(files, tmp_path / "fresh")
    assert root_hash(states) == root_hash(fresh)
    assert states["words"].dataset.manifest.rows == fresh["words"].dataset.manifest.rows
    assert states["words"].dataset.manifest.left_out == {"comment": 1}
    states["words"].dataset.require_files()


def test_what_another_generation_made_is_not_taken_if_it_is_damaged(files, tmp_path: Path):
    before = make(files[:2], tmp_path / "run")["words"].dataset
    (before.folder / "00000.parquet").write_bytes(b"xx")
    (before.folder / "reports" / "00001.json").write_text("{torn")
    counting = Counting()
    states = make(files, tmp_path / "run", executor=counting)
    assert Counter(counting.ran)["words"] == 3
    assert root_hash(states) == root_hash(make(files, tmp_path / "fresh"))


def test_what_is_taken_over_stays_when_the_other_generation_goes(files, tmp_path: Path):
    before = make(files[:2], tmp_path / "run")["words"].dataset
    after = make(files, tmp_path / "run")["words"].dataset
    shutil.rmtree(before.folder)
    assert sum(len(batch) for batch in after.all()) == after.manifest.rows


@pytest.mark.parametrize("change", ["version", "settings", "shards"])
def test_what_was_made_in_another_way_is_not_taken(files, tmp_path: Path, change: str):
    def words(name: str, shards: int, **changed: object) -> Counter[str]:
        stage = dataclasses.replace(toy.plan(files, tmp_path / "run", {"least": 2})[0], **changed)
        counting = Counting()
        rebuild.rebuild([stage], tmp_path / "run", shards, counting, lambda *_: None)
        return Counter(counting.ran)

    assert words("first", 4) == {"words": 3}
    changed = {"version": {"version": 2}, "settings": {"settings": {"a": 1}}, "shards": {}}[change]
    assert words("other", 5 if change == "shards" else 4, **changed) == {"words": 3}
