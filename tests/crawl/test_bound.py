"""What politeness takes: counted by the same rules as what is asked."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawl import bound, notes, observations, pages
from crawl.bound import Bound
from crawl.config import CrawlConfig
from crawl.schema import Observation, PageOutcome
from crawl.steering import Steering
from tests import web

SIZES = {"a.test": 5, "b.test": 3, "c.test": 1}
NOBODY = Steering()


def links(sizes: dict[str, int] = SIZES, outcome: str = "kept") -> pa.Table:
    addresses = [f"http://{host}/{n}" for host, count in sizes.items() for n in range(count)]
    return pa.Table.from_batches([web.links_to(*addresses, outcome=outcome)])


def of(folder: Path, *tables: pa.Table, said: Steering = NOBODY, **keys: Any) -> Bound:
    picked = [table.select(list(bound.COLUMNS)) for table in tables or [links()]]
    return bound.of(picked, folder, CrawlConfig(**keys), said)


def observe(folder: Path, host: str, outcome: str, count: int, source: str = "live") -> None:
    low, high = observations.LOWEST, observations.HIGHEST
    rows = [row for row in links().to_pylist() if row["host"] == host][:count]
    with observations.Writer(folder, low, high, label="test") as writer:
        for row in rows:
            writer.append(
                Observation(
                    link_id=row["link_id"],
                    url_key=row["url_key"],
                    url=row["fetch_url"],
                    outcome=PageOutcome(outcome),
                    source=source,
                    fetched_at=pages.utc_now(),
                )
            )


def test_the_longest_host_counts(tmp_path: Path) -> None:
    found = Bound(seconds=10.0, host="a.test", pages=5, delay_s=2.0, total=9, hosts=3)
    assert of(tmp_path, min_delay_s=2.0) == found


def test_ranges_are_added_up(tmp_path: Path) -> None:
    apart = [links({host: count}) for host, count in SIZES.items()]
    assert of(tmp_path, *apart) == of(tmp_path)
    assert of(tmp_path, *apart, links({}), links({"d.test": 50}, "media")) == of(tmp_path)


def test_nobody_is_asked(tmp_path: Path) -> None:
    assert of(tmp_path, links({})) == Bound()


def test_what_the_ledger_holds_is_not_asked(tmp_path: Path) -> None:
    observe(tmp_path, "a.test", "timeout", 4)
    found = of(tmp_path)
    assert (found.host, found.pages, found.total) == ("b.test", 3, 5)
    again = of(tmp_path, retry=(PageOutcome.TIMEOUT,))
    assert (again.host, again.pages, again.total) == ("a.test", 5, 9)


def test_what_archives_have_is_not_asked(tmp_path: Path) -> None:
    observe(tmp_path, "a.test", "ok", 5, source="archive")
    assert of(tmp_path).host == "b.test"


def test_whom_the_operator_denies_is_not_counted(tmp_path: Path) -> None:
    found = of(tmp_path, said=Steering(deny=("a.test", "http://b.test/2")))
    assert (found.host, found.pages, found.total) == ("b.test", 2, 3)
    found = of(tmp_path, said=Steering(deny=("a.test",)))
    assert (found.host, found.pages, found.total) == ("b.test", 3, 4)
    assert of(tmp_path, said=Steering(allow=("c.test",))).total == 1


def test_a_budget_of_pages_and_of_time_holds(tmp_path: Path) -> None:
    found = of(tmp_path, max_pages_per_host=2)
    assert (found.seconds, found.total) == (2.0, 5)
    assert of(tmp_path, max_host_s=3.5).seconds == 3.5


@pytest.mark.parametrize(("told", "counts"), [(7.0, 7.0), (0.5, 1.0), (500.0, 120.0)])
def test_a_crawl_delay_that_was_told_counts_within_its_bounds(
    tmp_path: Path, told: float, counts: float
) -> None:
    with notes.Notes(tmp_path, observations.LOWEST, observations.HIGHEST, label="live") as kept:
        kept.tell(notes.Note(host="b.test", delay_s=told))
    found = of(tmp_path)
    most = max((5.0, "a.test"), (3 * counts, "b.test"))
    assert (found.seconds, found.host) == most
