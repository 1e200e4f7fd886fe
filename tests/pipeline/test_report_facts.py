"""What the report counts: equal to a plain count of the same rows, whatever is made so far."""

import itertools
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawl.schema import LINKS, PAGES
from dedup.schema import CORPUS
from pipeline.failures import Damaged
from pipeline.report import crawled, curated, facts, losses
from pipeline.report.tables import opened
from pipeline.store import Dataset
from tests.pipeline import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    return made_run.make(tmp_path_factory.mktemp("run"), links=200)


@pytest.fixture(scope="module")
def found(run: dict[str, Dataset]) -> dict[str, Any]:
    return facts.gather(run, None)


def rows(run: dict[str, Dataset], name: str) -> list[dict[str, Any]]:
    return [row for path in run[name].files() for row in pq.read_table(path).to_pylist()]


def test_facts_are_plain_json_and_the_same_each_time(run: dict[str, Dataset]) -> None:
    once, again = facts.gather(run, None), facts.gather(run, None)
    assert json.dumps(once) == json.dumps(again)


def test_in_the_funnel_nothing_vanishes(found: dict[str, Any]) -> None:
    steps = found["funnel"]
    assert [step["step"] for step in steps] == [
        "lines of the dumps",
        "submissions with a link",
        "distinct links",
        "links to follow",
        "pages",
        "documents with text",
        "documents kept",
        "documents in tokens",
    ]
    for above, step in itertools.pairwise(steps):
        assert above["count"] - sum(step["lost"].values()) == step["count"], step


def test_karma_counts_every_link_once(run: dict[str, Dataset], found: dict[str, Any]) -> None:
    assert sum(row["links"] for row in found["karma"]) == len(rows(run, "links"))
    kept = [row for row in rows(run, "corpus") if row["verdict"] == "kept"]
    assert sum(row["kept"] for row in found["karma"]) == len(kept)
    three = next(row for row in found["karma"] if row["from"] == 3)
    assert three["links"] == sum(3 <= row["karma"] < 5 for row in rows(run, "links"))


def test_months_are_in_order_and_complete(run: dict[str, Dataset], found: dict[str, Any]) -> None:
    assert [row["month"] for row in found["months"]] == sorted(
        {row["day"].strftime("%Y-%m") for row in rows(run, "submissions")}
    )
    assert sum(row["posts"] for row in found["months"]) == len(rows(run, "submissions"))


def test_every_reason_is_told_with_its_share(
    run: dict[str, Dataset], found: dict[str, Any]
) -> None:
    for name, column in (("submissions", None), ("links", "outcome")):
        made = run[name].manifest
        left_out = Counter(made.left_out)
        if column:
            left_out = Counter(row[column] for row in rows(run, name) if row[column] != "kept")
        told = found["left_out"][name]
        assert {row["reason"]: row["count"] for row in told["reasons"]} == left_out
        assert told["of"] == made.rows + (0 if column else left_out.total())
        assert [row["share"] for row in told["reasons"]] == [
            pytest.approx(count / told["of"]) for _, count in left_out.most_common()
        ]
    assert len(found["left_out"]["links"]["reasons"]) == 3


def test_what_could_not_be_read_is_counted_and_its_beginning_told(found: dict[str, Any]) -> None:
    malformed = len(made_run.FAULTS)
    assert malformed > losses.FAULTS
    assert found["faults"] == {
        "count": malformed + 1,
        "malformed": malformed,
        "truncated": 1,
        "first": made_run.FAULTS[:20],
    }


def test_links_that_are_made_of_submissions_no_longer_there(run: dict[str, Dataset]) -> None:
    found = facts.gather({"links": run["links"]}, None)
    assert found["left_out"]["submissions"] is None and found["faults"] is None
    assert found["left_out"]["links"]["of"] == len(rows(run, "links"))


def test_repeats_count_every_link_and_submission_once(
    run: dict[str, Dataset], found: dict[str, Any]
) -> None:
    lengths = [len(row["submissions"]) for row in rows(run, "links")]
    assert {1, 2, 3, 7, 12, 120} == {*lengths}
    told = found["repeats"]
    assert [row["from"] for row in told] == [1, 2, 3, 4, 5, 10, 20, 50, 100]
    for row in told:
        alike = [n for n in lengths if row["from"] <= n < (row["below"] or 10**9)]
        assert (row["links"], row["submissions"]) == (len(alike), sum(alike))
    assert sum(row["submissions"] for row in told) == len(rows(run, "submissions"))


@pytest.mark.parametrize("times, place", [(4, 3), (5, 4), (9, 4), (10, 5), (99, 7), (100, 8)])
def test_a_link_stands_between_the_edges_of_its_repeats(
    tmp_path: Path, times: int, place: int
) -> None:
    link = {"link_id": bytes(16), "url_key": "u", "fetch_url": "u", "host": "a.test", "karma": 1}
    link |= {"submissions": ["p"] * times, "subreddits": [], "outcome": "kept"}
    pq.write_table(pa.Table.from_pylist([link], LINKS), tmp_path / "00000.parquet")
    with opened({"links": Dataset("links", "f", tmp_path, 1)}) as tables:
        told = crawled.repeats(tables)
    assert told is not None
    assert [row["links"] for row in told] == [int(n == place) for n in range(9)]


def test_hosts_before_and_after(run: dict[str, Dataset], found: dict[str, Any]) -> None:
    hosts = found["hosts"]
    names = {row["host"].removeprefix("www.") for row in rows(run, "links")}
    assert hosts["hosts"] == len(names)
    assert {row["host"] for row in hosts["by_links"]} <= names
    tokens = [row["tokens"] for row in hosts["by_tokens"]]
    assert tokens == sorted(tokens, reverse=True)
    if len(names) <= 25:
        assert sum(tokens) == sum(row["length"] for row in rows(run, "tokens"))
    assert 0 < hosts["ten_hold_of_links"] <= 1
    links = Counter(row["host"].removeprefix("www.") for row in rows(run, "links"))
    assert len(links) > 10
    ten = sum(count for _, count in links.most_common(10))
    assert hosts["ten_hold_of_links"] == pytest.approx(ten / links.total())


def test_fetches_count_every_page_and_its_bytes(
    run: dict[str, Dataset], found: dict[str, Any]
) -> None:
    pages = rows(run, "pages")
    for row in found["fetches"]["outcomes"]:
        alike = [page for page in pages if page["outcome"] == row["outcome"]]
        assert (row["source"], row["pages"]) == ("live", len(alike))
        assert row["bytes"] == sum(page["bytes"] for page in alike)
    assert sum(row["pages"] for row in found["fetches"]["outcomes"]) == len(pages)
    assert {row["status"]: row["pages"] for row in found["fetches"]["statuses"]} == Counter(
        page["status"] for page in pages
    )


def test_pages_that_nobody_asked_for_have_no_status(tmp_path: Path) -> None:
    page = {"link_id": bytes(16), "url": "http://a.test/", "outcome": "not_archived"}
    pq.write_table(pa.Table.from_pylist([page], PAGES), tmp_path / "00000.parquet")
    with opened({"pages": Dataset("pages", "f", tmp_path, 1)}) as tables:
        fetches = crawled.fetches(tables)
    assert fetches is not None and fetches["statuses"] == []
    assert fetches["outcomes"] == [
        {"outcome": "not_archived", "source": "not asked", "pages": 1, "bytes": 0}
    ]


def test_languages_count_documents_and_words(
    run: dict[str, Dataset], found: dict[str, Any]
) -> None:
    for row in found["languages"]:
        alike = [one for one in rows(run, "signals") if one["language"] == row["language"]]
        assert (row["documents"], row["words"]) == (len(alike), sum(o["words"] for o in alike))
    assert [row["language"] for row in found["languages"]] == ["en", "de"]


def test_every_signal_has_a_histogram_of_all_documents(
    run: dict[str, Dataset], found: dict[str, Any]
) -> None:
    measured = rows(run, "signals")
    assert {one["signal"] for one in found["signals"]} == set(measured[0]) - {
        "document_id",
        "language",
    }
    for one in found["signals"]:
        histogram = one["histogram"]
        assert sum(histogram["counts"]) == len(measured), one["signal"]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    words = next(one for one in found["signals"] if one["signal"] == "words")
    assert (words["least"], words["most"]) == (50, 9000)


def test_duplicates_and_rules(run: dict[str, Dataset], found: dict[str, Any]) -> None:
    gone = [row for row in rows(run, "duplicates") if row["keeper_id"] is not None]
    assert found["duplicates"]["dropped"] == len(gone)
    assert found["duplicates"]["pairs"] == len(rows(run, "pairs"))
    assert sum(found["duplicates"]["jaccard"]["counts"]) == len(rows(run, "pairs"))
    assert all(len(one["urls"]) == 2 for one in found["duplicates"]["largest"])
    by_rule = {row["rule"]: row for row in found["rules"]}
    dropped = [row for row in rows(run, "corpus") if "min_words" in row["rules"]]
    assert by_rule["min_words"]["documents"] == len(dropped)
    assert by_rule["min_words"]["alone"] + by_rule["min_words"]["with_others"] == len(dropped)


def test_a_rule_that_drops_with_another_does_not_drop_alone(tmp_path: Path) -> None:
    broken = (["min_words"], ["min_words", "language"], [])
    corpus = [
        {"document_id": bytes([n]) * 16, "url": "u", "rules": rules}
        for n, rules in enumerate(broken)
    ]
    pq.write_table(pa.Table.from_pylist(corpus, CORPUS), tmp_path / "00000.parquet")
    with opened({"corpus": Dataset("corpus", "f", tmp_path, 1)}) as tables:
        assert curated.rules(tables) == [
            {"rule": "min_words", "documents": 2, "alone": 1, "with_others": 1},
            {"rule": "language", "documents": 1, "alone": 0, "with_others": 1},
        ]


def test_tokens_by_split(run: dict[str, Dataset], found: dict[str, Any]) -> None:
    index = rows(run, "tokens")
    (split,) = found["tokens"]["splits"]
    assert split == {
        "split": "train",
        "documents": len(index),
        "tokens": sum(row["length"] for row in index),
    }


def test_samples_are_of_each_kind_and_another_seed_gives_others(run: dict[str, Dataset]) -> None:
    one, same, other = (facts.gather(run, None, seed)["samples"] for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one["kept"]) == 10
    assert 1 <= len(one["min_words"]) <= 3


@pytest.mark.parametrize("upto", [0, 1, 2, 3, 5, 7, 9])
def test_a_run_that_is_not_done_leaves_sections_out(run: dict[str, Dataset], upto: int) -> None:
    part = dict(list(run.items())[:upto])
    found = facts.gather(part, None)
    assert found["tokens"] is None
    assert found["training"] is None
    for key in ("karma", "repeats", "domains"):
        assert (found[key] is None) == ("links" not in part)
    for key in ("left_out", "faults"):
        assert (found[key] is None) == ("submissions" not in part)
    assert len(found["passport"]["datasets"]) == upto
    assert found["passport"]["root_hash"] is None


def test_training_curve_is_thinned_but_keeps_its_ends(tmp_path: Path) -> None:
    lines = [
        {"step": n, "loss": 10 - n / 500, "lr": 1e-3, "tokens": n * 512}
        | ({"validation_loss": 9.0} if n % 250 == 0 else {})
        for n in range(1, 2502)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "evaluation.json").write_text('{"loss": 6.5}')
    found = facts.gather({}, tmp_path)["training"]
    looks = [line["step"] for line in found["curve"] if "validation_loss" in line]
    assert looks == list(range(250, 2501, 250))
    assert len(found["curve"]) <= facts.CURVE_POINTS + len(looks) + 1
    assert (found["curve"][0]["step"], found["curve"][-1]["step"]) == (1, 2501)
    assert (found["first_loss"], found["steps"]) == (lines[0]["loss"], 2501)
    assert found["last_loss"] == pytest.approx(sum(line["loss"] for line in lines[-10:]) / 10)
    assert found["evaluation"] == {"loss": 6.5}


def test_so_are_looks_at_the_held_out_split_and_no_line_is_kept_in_memory(tmp_path: Path) -> None:
    line = '{"step":%d,"loss":2.0,"validation_loss":3.0,"seconds":0.5}\n'
    (tmp_path / "metrics.jsonl").write_text("".join(line % n for n in range(1, 20_001)))
    tracemalloc.start()
    found = facts.gather({}, tmp_path)["training"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert facts.CURVE_POINTS <= len(found["curve"]) <= 2 * facts.CURVE_POINTS + 1
    assert (found["curve"][-1]["step"], found["seconds"]) == (20_000, 10_000.0)
    assert most < 4_000_000  # all of them would be ten


def test_a_histogram_of_one_value_and_of_none(tmp_path: Path) -> None:
    with opened({}) as tables:
        assert tables.histogram("(select 5 as x)", "x") is not None
        assert sum(tables.histogram("(select 5 as x)", "x")["counts"]) == 1  # type: ignore[index]
        assert tables.histogram("(select null::double as x)", "x") is None
        assert tables.log_histogram("(select 0 as x)", "x")["counts"] == [1.0]  # type: ignore[index]


def test_values_lie_between_the_edges_of_their_bin() -> None:
    values = "(select unnest([1, 5, 5, 70]) as x)"
    with opened({}) as tables:
        for histogram in (tables.histogram(values, "x"), tables.log_histogram(values, "x")):
            assert histogram is not None
            bins = zip(itertools.pairwise(histogram["edges"]), histogram["counts"], strict=True)
            filled = [(low, high, count) for (low, high), count in bins if count]
            assert [count for _, _, count in filled] == [1, 2, 1]
            for value, (low, high, _) in zip((1, 5, 70), filled, strict=True):
                assert low <= value < high or value == high == 70


@pytest.mark.parametrize("name", ["it's a run", "*", "[a]b?", "seed=1"])
def test_folders_of_any_name_are_read_and_nothing_beside_them(tmp_path: Path, name: str) -> None:
    plain = facts.gather(made_run.make(tmp_path / "run", links=30), None)
    assert plain["tokens"]["splits"]
    assert facts.gather(made_run.make(tmp_path / name, links=30), None) == plain


def test_a_damaged_evaluation_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "evaluation.json").touch()
    with pytest.raises(
        Damaged, match=r"evaluation\.json: .*; remove it and run `webtext evaluate`$"
    ):
        facts.gather({}, tmp_path)
