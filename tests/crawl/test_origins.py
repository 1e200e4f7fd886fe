"""What is known of each origin, with a clock that is turned by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import robots
from crawl.origins import UNDEFINED_S, UNREACHABLE_S, Origins
from crawl.robots import CACHE_S, Rules

A, B = "http://a.test", "http://b.test"
PAGE = "http://a.test/page"
OPEN = robots.verdict(200, b"User-agent: *\nDisallow: /no", "webtext")
SHUT = robots.verdict(200, b"User-agent: *\nDisallow: /", "webtext")
GONE = robots.verdict(404, b"", "webtext")
DOWN = robots.verdict(503, b"", "webtext")
DAY = 24 * 3600.0


def test_who_was_never_asked_has_to_be() -> None:
    assert Origins().known(A, 0.0) is None


@pytest.mark.parametrize("rules", [OPEN, SHUT, GONE])
def test_an_answer_is_used_for_24_hours(rules: Rules) -> None:
    origins = Origins()
    assert origins.settle(A, rules, 5.0) == rules
    assert origins.known(A, 5.0 + CACHE_S - 1) == rules
    assert origins.known(A, 5.0 + CACHE_S) is None
    assert origins.known(B, 6.0) is None


def test_what_was_not_reached_is_asked_for_again_after_an_hour() -> None:
    origins = Origins()
    assert not origins.settle(A, DOWN, 0.0).allows(PAGE)
    found = origins.known(A, UNREACHABLE_S - 1)
    assert found and not found.allows(PAGE)
    assert origins.known(A, UNREACHABLE_S) is None


@pytest.mark.parametrize("copy", [OPEN, SHUT, GONE])
def test_the_copy_is_used_on_while_the_file_is_unreachable(copy: Rules) -> None:
    origins = Origins()
    origins.settle(A, copy, 0.0)
    for day in (1, 2, 29, 31, 90):
        assert origins.settle(A, DOWN, day * DAY) == copy
        assert origins.known(A, day * DAY + 1) == copy
        assert origins.unreachable_since(A) == DAY


def test_after_30_days_without_a_copy_all_is_allowed() -> None:
    origins = Origins()
    assert not origins.settle(A, DOWN, 0.0).allows(PAGE)
    assert not origins.settle(A, DOWN, UNDEFINED_S - 1).allows(PAGE)
    assert origins.settle(A, DOWN, UNDEFINED_S).allows(PAGE)
    assert origins.settle(A, SHUT, UNDEFINED_S + 1) == SHUT
    assert origins.unreachable_since(A) is None


@pytest.mark.parametrize(("since", "allowed"), [(-UNDEFINED_S, True), (-UNDEFINED_S + 1, False)])
def test_an_earlier_run_can_have_seen_it_unreachable(since: float, allowed: bool) -> None:
    origins = Origins()
    origins.remember(A, since)
    assert origins.unreachable_since(A) == since
    assert origins.known(A, 0.0) is None
    assert origins.settle(A, DOWN, 0.0).allows(PAGE) is allowed
    assert not origins.settle(B, DOWN, 0.0).allows(PAGE)


def test_an_answer_of_any_kind_ends_the_time_of_being_unreachable() -> None:
    origins = Origins()
    origins.remember(A, -UNDEFINED_S)
    origins.settle(A, GONE, 0.0)
    assert origins.unreachable_since(A) is None
    origins.settle(A, DOWN, DAY)
    assert origins.unreachable_since(A) == DAY


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    origins = Origins(max_bytes=20 * OPEN.weight())
    origins.settle(A, DOWN, 0.0)
    for number in range(1000):
        origins.settle(f"http://{number}.test", OPEN, 1.0)
    assert len(origins) == 20
    assert origins.known("http://999.test", 2.0) == OPEN
    assert origins.known("http://0.test", 2.0) is None
    assert origins.unreachable_since(A) == 0.0
    assert origins.settle(A, DOWN, UNDEFINED_S).allows(PAGE)


def test_one_origin_is_held_whatever_its_size() -> None:
    origins = Origins(max_bytes=1)
    origins.settle(A, OPEN, 0.0)
    origins.settle(B, SHUT, 0.0)
    assert origins.known(B, 1.0) == SHUT and len(origins) == 1


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from([OPEN, SHUT, GONE, DOWN]),
                          st.floats(0, 40 * DAY)), max_size=20))  # fmt: skip
def test_nothing_is_known_for_longer_than_a_day(steps: list[tuple[str, Rules, float]]) -> None:
    origins, now = Origins(), 0.0
    last: dict[str, float] = {}
    reached: dict[str, Rules] = {}
    for origin, rules, pause in steps:
        now += pause
        counts = origins.settle(origin, rules, now)
        last[origin] = now
        if rules is not DOWN:
            reached[origin] = rules
        # never more than the last answer that came allows, until 30 days are over
        if origin in reached:
            assert counts == reached[origin]
        for name in (A, B):
            known = origins.known(name, now)
            assert known is None or now < last[name] + CACHE_S
