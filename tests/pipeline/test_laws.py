"""Each law holds for a run as it was made, and is broken by what it forbids, and by that alone."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.config import DedupConfig
from pipeline import laws, state
from pipeline.store import Dataset
from tests.pipeline import small_run
from training.schema import SPLITS

Run = Mapping[str, Dataset]
Row = dict[str, Any]
Rows = list[Row]
NOBODY = b"\xff" * 16


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laws")
    small_run.rebuild(small_run.config(folder))
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    shutil.copytree(made, tmp_path / "run")
    return state.datasets(tmp_path / "run")


def rewrite(dataset: Dataset, change: Callable[[Rows], Rows]) -> None:
    """Change the rows of each of its files."""
    for path in dataset.files():
        table = pq.read_table(path)
        rows = change(table.to_pylist())
        pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def rows(dataset: Dataset, where: str) -> Rows:
    return [row for b in dataset.all() for row in b.to_pylist() if eval(where, {}, row)]


def edit(run: Run, name: str, where: str, **values: Any) -> None:
    """Give the first row of a dataset for which `where` is true other values."""
    key = next(run[name].all()).schema.names[0]
    chosen = rows(run[name], where)[0][key]
    rewrite(run[name], lambda found: [row | values if row[key] == chosen else row for row in found])


def test_every_law_holds_for_a_run_as_it_was_made(run: Run) -> None:
    found = laws.check(run, DedupConfig(), laws.damaged(run))
    assert {law.number: law.verdict for law in found} == {
        **dict.fromkeys(("1", "2", "3", "4", "4b", "5"), "holds"),
        **dict.fromkeys(("4c", "5b", "6"), "not checked"),
    }
    (twins,) = [law for law in found if law.number == "4"]
    assert twins.evidence.startswith("1 duplicates, 1 compared exactly: least Jaccard ")


def first_gone(run: Run) -> None:
    lost = rows(run["pages"], "True")[0]["link_id"]
    rewrite(run["pages"], lambda found: [row for row in found if row["link_id"] != lost])


def first_twice(run: Run) -> None:
    twice = rows(run["pages"], "True")[0]
    rewrite(run["pages"], lambda found: found + [row for row in found if row == twice])


def a_text_without_verdict(run: Run) -> None:
    rewrite(run["corpus"], lambda found: [row for row in found if row["rule"] != "min_words"])


def fewer_in_the_index(run: Run) -> None:
    lost = rows(run["tokens"], "True")[0]["document_id"]
    rewrite(run["tokens"], lambda found: [row for row in found if row["document_id"] != lost])


def files(run: Run, split: str) -> list[Path]:
    return [p for p in sorted(run["tokens"].folder.glob(f"*.{split}.bin")) if p.stat().st_size]


def a_token_less(run: Run) -> None:
    path = files(run, "train")[0]
    path.write_bytes(path.read_bytes()[2:])


def held_out_text_in_the_training_file(run: Run) -> None:
    train, held_out = files(run, "train")[0], files(run, "validation")[0]
    train.write_bytes(train.read_bytes() + held_out.read_bytes())
    held_out.write_bytes(b"")


def a_document_on_the_other_side(run: Run) -> None:
    edit(run, "corpus", "split == 'validation'", split="train")


def a_duplicate_without_a_keeper(run: Run) -> None:
    edit(run, "duplicates", "keeper_id is not None", keeper_id=None)


def dropped_for_nothing(run: Run) -> None:
    verdict = {"verdict": "dropped", "rule": "duplicate", "rules": ["duplicate"], "split": None}
    edit(run, "corpus", "split == 'train'", **verdict)


def a_keeper_that_is_no_document(run: Run) -> None:
    edit(run, "duplicates", "keeper_id is not None", keeper_id=NOBODY)


def a_keeper_that_is_dropped(run: Run) -> None:
    (twin,) = rows(run["duplicates"], "keeper_id is not None")
    edit(run, "duplicates", "keeper_id is not None", keeper_id=twin["document_id"])


def a_keeper_of_another_text(run: Run) -> None:
    keeper = rows(run["duplicates"], "keeper_id is not None")[0]["keeper_id"]
    others = rows(run["corpus"], "verdict == 'kept'")
    other = next(row["document_id"] for row in others if row["document_id"] != keeper)
    edit(run, "duplicates", "keeper_id is not None", keeper_id=other)


def a_twin_that_is_kept(run: Run) -> None:
    keeper = rows(run["duplicates"], "keeper_id is not None")[0]["keeper_id"]
    (beside,) = [row for row in rows(run["corpus"], "True") if row["document_id"] == keeper]
    kept = {"verdict": "kept", "rule": None, "rules": [], "split": beside["split"]}
    edit(run, "corpus", "rule == 'duplicate'", **kept)


def twins_that_no_band_found(run: Run) -> None:
    text = " ".join(small_run.LICENCE[: small_run.WORDS])
    rewrite(run["documents"], lambda found: [row | {"text": row["text"] and text} for row in found])


def likeness_across_the_split(run: Run) -> None:
    a, b = (rows(run["corpus"], f"split == {s!r}")[0]["document_id"] for s in SPLITS)
    edit(run, "pairs", "True", a=min(a, b), b=max(a, b), jaccard=0.6)


def other_settings(run: Run) -> None:
    path = run["links"].folder / "begun.json"
    begun = json.loads(path.read_bytes())
    begun["settings"]["crawl.min_karma"] = 5
    path.write_text(json.dumps(begun))


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        (first_gone, {"1"}),
        (first_twice, {"1", "3"}),
        (a_text_without_verdict, {"1"}),
        (fewer_in_the_index, {"2"}),
        (a_token_less, {"2"}),
        (held_out_text_in_the_training_file, {"2"}),
        (a_document_on_the_other_side, {"2"}),
        (other_settings, {"3"}),
        (a_duplicate_without_a_keeper, {"4"}),
        (dropped_for_nothing, {"2", "4"}),
        (a_keeper_that_is_no_document, {"4"}),
        (a_keeper_that_is_dropped, {"4"}),
        (a_keeper_of_another_text, {"4"}),
        (a_twin_that_is_kept, {"2", "4", "4b"}),
        (twins_that_no_band_found, {"4b"}),
        (likeness_across_the_split, {"5"}),
    ],
)
def test_what_a_law_forbids_breaks_it(
    run: Run, breaks: Callable[[Run], None], expected: set[str]
) -> None:
    breaks(run)
    found = laws.check(run, DedupConfig(), [])
    assert {law.number for law in found if law.verdict == "broken"} == expected


@pytest.mark.parametrize("how", ["is gone", "is not as it was written"])
def test_a_damaged_file_is_named_with_what_to_do_and_no_other_law_is_asked(
    run: Run, how: str
) -> None:
    path = run["links"].files()[0]
    path.unlink() if how == "is gone" else path.write_bytes(b"xx")
    faults = laws.damaged(run)
    assert faults == [f"{path} {how}: remove {path.parent}, run `webtext rebuild`"]
    verdicts = {law.number: law.verdict for law in laws.check(run, DedupConfig(), faults)}
    assert verdicts.pop("3") == "broken" and set(verdicts.values()) == {"not checked"}


def test_a_run_that_is_half_made_is_half_checked(run: Run) -> None:
    part = {name: run[name] for name in ("submissions", "links", "pages", "documents")}
    found = {law.number: law for law in laws.check(part, DedupConfig(), laws.damaged(part))}
    assert found["3"].verdict == "holds"
    assert found["1"].evidence == "not made yet: corpus"
    assert {law.verdict for number, law in found.items() if number != "3"} == {"not checked"}


@pytest.mark.parametrize("name", ["*", "a[b]?", "seed=1", "it's"])
def test_a_folder_of_any_name_is_read_and_nothing_beside_it(
    made: Path, tmp_path: Path, name: str
) -> None:
    for folder in (name, "beside", "ab?"):
        shutil.copytree(made, tmp_path / folder)
    run = state.datasets(tmp_path / name)
    assert laws.query(run["links"], "select count(*) from rows") == [(11,)]
    assert laws.query(run["links"], "select count(*) from (describe rows)") == [(9,)]
