"""Whole crawls with a clock turned by hand: 20,000 hosts and days of waiting in seconds.

`benchmarks/politeness.py` does the same with a million hosts and ten million pages."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import politeness
from benchmarks.politeness import CASES, RECIPE, Result, simulated
from crawl.frontier import Ask, Frontier, Wait
from crawl.pace import Pace

HOSTS, URLS = 20_000, 200_000
DRAWN, TIGHT = CASES[:2]


def crawled(case: politeness.Case, seed: int = 1) -> Result:
    """What must hold of each crawl, however long it takes."""
    result = simulated(case, HOSTS, URLS, seed)
    assert result.hurried == 0
    assert result.missing == 0
    assert result.settled.total() == URLS
    return result


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crawl_takes_hardly_longer_than_politeness_does(data: Path, seed: int) -> None:
    result = crawled(DRAWN, seed)
    assert result.politeness_s < result.makespan_s <= 1.15 * result.politeness_s
    assert result.lost > HOSTS / 50 and result.settled["dropped"] > 0 < result.settled["failed"]


def test_few_connections_are_given_to_the_longest_hosts(data: Path) -> None:
    result = crawled(TIGHT)
    bound_s = max(result.host_s, result.connections_s)
    assert result.connections_s > 0.5 * result.host_s  # the connections are nearly all in use
    assert bound_s <= result.makespan_s <= 1.15 * bound_s
    first_come = crawled(replace(TIGHT, longest_first=False))
    assert first_come.makespan_s > 1.15 * max(first_come.host_s, first_come.connections_s)


def test_a_host_costs_less_than_800_bytes_at_every_moment() -> None:
    tracemalloc.start()
    turns: Frontier[int] = Frontier(Pace(min_delay_s=1e6), HOSTS)
    for number in range(HOSTS):
        turns.add(f"host-{number}.example", range(number << 20, (number << 20) + 10))
    for now in range(HOSTS):  # all wait then, each with one more job before the others
        step = turns.next(float(now))
        assert isinstance(step, Ask)
        turns.again(step.host, [step.job])
        turns.ended(step.host, float(now))
    assert isinstance(turns.next(0.0), Wait)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < HOSTS * 800
    assert turns.counts().jobs == 10 * HOSTS


def test_pages_are_spread_as_the_domains_of_webtext(data: Path) -> None:
    head = politeness.head()
    pages = politeness.spread(head, HOSTS, URLS)
    most = RECIPE.max_pages_per_host * URLS // 10**7
    assert (len(pages), sum(pages), max(pages)) == (HOSTS, URLS, most)
    assert min(pages) >= 1
    assert sorted(pages[:10_000], reverse=True) == pages[:10_000]
    below = [place for place, count in enumerate(pages[:500]) if count < most]
    assert len(below) > 400
    for place in below:
        assert pages[place] / pages[500] == pytest.approx(head[place] / head[500], rel=0.05)
