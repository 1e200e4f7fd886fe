"""Who is to be asked: what the ledger holds is not, but for what the recipe names; and no host for
more than its budget, however many crawls there are."""

import datetime
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import todo
from crawl.config import CrawlConfig
from crawl.schema import OBSERVATIONS
from tests import web

AGENT = "webtext/1.0 (+https://example.org/bot)"
A = [f"http://a.test/{n}" for n in range(6)]


def config(**replaced: object) -> CrawlConfig:
    return CrawlConfig(user_agent=AGENT, **replaced)  # type: ignore[arg-type]


def kept(*addresses: str) -> pa.Table:
    return todo.kept(pa.Table.from_batches([web.links_to(*addresses)]))


def rows(*told: tuple[str, str] | tuple[str, str, str]) -> pa.Table:
    """Rows of the ledger: address, outcome, source."""
    found = []
    for address, outcome, *source in told:
        (link,) = web.links_to(address).to_pylist()
        row = dict.fromkeys(OBSERVATIONS.names)
        row |= {"link_id": link["link_id"], "url_key": link["url_key"], "url": address}
        row |= {"outcome": outcome, "source": source[0] if source else "live"}
        row |= {"fetched_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "asked": "{}"}
        found.append(row)
    return pa.Table.from_pylist(found, OBSERVATIONS)


def asked(table: pa.Table, ledger: pa.Table, settings: CrawlConfig) -> set[str]:
    return set(todo.of(table, ledger, settings)["fetch_url"].to_pylist())


def test_only_kept_links_by_id() -> None:
    batches = [web.links_to(*A[:3]), web.links_to(*A[3:], outcome="media")]
    found = todo.kept(pa.Table.from_batches(batches))
    assert set(found["fetch_url"].to_pylist()) == set(A[:3])
    assert found["link_id"].to_pylist() == sorted(found["link_id"].to_pylist())


def test_what_was_observed_is_not_asked_and_the_rest_is_sorted_by_host() -> None:
    table = kept("http://b.test/", *A, "http://c.test/")
    ledger = rows((A[0], "ok"), (A[1], "timeout"), (A[2], "ok", "archive"))
    found = todo.of(table, ledger, config())
    assert found["host"].to_pylist() == ["a.test"] * 3 + ["b.test", "c.test"]
    assert asked(table, ledger, config()) == {*A[3:], "http://b.test/", "http://c.test/"}


@pytest.mark.parametrize(
    ("told", "again"),
    [
        ([("timeout",)], True),
        ([("timeout",), ("timeout",)], False),  # as often as it may
        ([("ok",)], False),
        ([("timeout",), ("ok",)], False),
        ([("timeout",), ("http_error",)], False),  # a better one, or at least another
        ([("timeout", "archive")], True),  # an archive's is one as well
        ([("timeout", "archive")] * 3, True),  # and all of them are one
        ([("timeout", "archive"), ("timeout",)], False),
        ([("timeout", "archive"), ("ok",)], False),
        ([("ok", "archive"), ("timeout",)], False),
        # where it led to counts, not that it led away
        ([("redirected_offsite",), ("timeout",)], True),
        ([("redirected_offsite",), ("ok",)], False),
        ([("redirected_offsite",), ("timeout",), ("redirected_offsite",), ("timeout",)], False),
        ([("redirected_offsite",)], False),
    ],
)
def test_an_outcome_that_is_to_be_tried_again_is(told: list[tuple[str, ...]], again: bool) -> None:
    ledger = rows(*((A[0], *one) for one in told))  # type: ignore[misc]
    assert asked(kept(A[0]), ledger, config(retry=("timeout",))) == ({A[0]} if again else set())
    assert asked(kept(A[0]), ledger, config()) == set()


def test_that_one_was_led_away_can_be_tried_again_too() -> None:
    ledger = rows((A[0], "redirected_offsite"), (A[1], "redirected_offsite"), (A[1], "ok"))
    assert asked(kept(*A[:2]), ledger, config(retry=("redirected_offsite",))) == {A[0]}


def test_as_many_outcomes_as_the_recipe_says() -> None:
    ledger = rows(*[(A[0], "timeout")] * 3)
    assert asked(kept(A[0]), ledger, config(retry=("timeout",), asks=3)) == set()
    assert asked(kept(A[0]), ledger, config(retry=("timeout",), asks=4)) == {A[0]}


def test_a_hosts_budget_counts_links_and_not_what_archives_have() -> None:
    table, settings = kept(*A, "http://b.test/"), config(max_pages_per_host=2)
    by_id = [one for one in table["fetch_url"].to_pylist() if one in A]
    assert asked(table, rows(), settings) == {*by_id[:2], "http://b.test/"}
    archived = rows((by_id[0], "ok", "archive"))
    assert asked(table, archived, settings) == {*by_id[1:3], "http://b.test/"}
    # who was asked before counts first, whatever its id
    late = rows((by_id[5], "ok"))
    assert asked(table, late, settings) == {by_id[0], "http://b.test/"}


def test_links_that_were_asked_count_though_an_archive_has_come_since() -> None:
    table, settings = kept(*A), config(max_pages_per_host=2)
    by_id = table["fetch_url"].to_pylist()
    told = [(one, "ok") for one in by_id[:2]]
    archived = [(one, "ok", "archive") for one in by_id[:2]]
    assert asked(table, rows(*told, *archived), settings) == set()
    assert asked(table, rows(*archived), settings) == {*by_id[2:4]}
    assert todo.counts(table, rows(*told, *archived), settings) == {"a.test": 6}


def test_links_that_an_archive_has_count_when_they_are_tried_again() -> None:
    table, settings = kept(*A), config(max_pages_per_host=2, retry=("too_large",))
    by_id = table["fetch_url"].to_pylist()
    archived = rows(*((one, "too_large", "archive") for one in by_id[:3]))
    assert asked(table, archived, settings) == {*by_id[:2]}
    ids = [table["link_id"].to_pylist()[n] for n in range(6)]
    # those that are not asked any more still have a page
    assert todo.left_out(table, archived, settings).to_pylist() == ids[3:]
    tried = pa.concat_tables([archived, rows(*((one, "too_large") for one in by_id[:2]))])
    assert asked(table, tried, settings) == set()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), unique=True),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=5),
)
def test_no_host_is_asked_for_more_than_its_budget_however_often_it_is_crawled(
    places: list[tuple[int, int]], crawls: list[tuple[int, int]]
) -> None:
    addresses = [f"http://h{host}.test/{path}" for host, path in places]
    table, ledger, seen = kept(*addresses), rows(), Counter[str]()
    for most, killed_after in crawls:
        settings = config(max_pages_per_host=most)
        wanted = todo.of(table, ledger, settings).to_pylist()
        done = wanted[:killed_after]
        ledger = pa.concat_tables([ledger, rows(*((row["fetch_url"], "ok") for row in done))])
        seen.update(row["host"] for row in done)
        most_ever = max(most for most, _ in crawls)
        assert all(count <= most_ever for count in seen.values())
        over = set(todo.over_budget(table, ledger, settings).to_pylist())
        assert {row["link_id"] for row in wanted}.isdisjoint(over)
        # whoever asks again with the same recipe asks for what was left, and for that alone
        left = {row["link_id"] for row in todo.of(table, ledger, settings).to_pylist()}
        assert left == {row["link_id"] for row in wanted[killed_after:]}


def test_links_to_the_domains_of_origins() -> None:
    table = kept("http://a.b.test/1", "http://b.test/2", "http://c.test/3", "http://d.test/4")
    found = todo.of_domains(table, ["https://www.b.test:8080", "http://d.test"])
    assert set(found["host"].to_pylist()) == {"a.b.test", "b.test", "d.test"}
    assert len(todo.of_domains(table, [])) == 0


def test_how_many_links_to_a_host_the_live_web_is_asked_for() -> None:
    table = kept(*A, "http://b.test/")
    ledger = rows((A[0], "ok", "archive"), (A[1], "ok"))
    assert todo.counts(table, ledger, config()) == {"a.test": 5, "b.test": 1}
    assert todo.counts(kept(), rows(), config()) == {}
