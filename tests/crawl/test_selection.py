"""One observation a link: a good one, the archives', the nearest to the post."""

import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import selection
from crawl.schema import OBSERVATIONS, RESPONSE_COLUMNS, Observation, PageOutcome

POST = datetime.date(2016, 5, 4)
OUTCOMES = [PageOutcome.OK, PageOutcome.TIMEOUT, PageOutcome.NOT_HTML, PageOutcome.OPTED_OUT]


def at(days: float) -> datetime.datetime:
    """So many days after noon of the day of the post."""
    return datetime.datetime(2016, 5, 4, 12, tzinfo=datetime.UTC) + datetime.timedelta(days=days)


def observation(n: int = 0, **changed: Any) -> Observation:
    row = Observation(
        link_id=bytes([n]) * 16,
        url_key=f"http://a.com/{n}",
        url=f"http://a.com/{n}",
        outcome=PageOutcome.OK,
        source="archive",
        fetched_at=at(0),
    )
    return msgspec.structs.replace(row, **changed)


def table(*rows: Observation) -> pa.Table:
    return pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], OBSERVATIONS)


def links(posts: dict[int, datetime.date | None]) -> pa.Table:
    rows = [{"link_id": bytes([n]) * 16, "first_seen": day} for n, day in sorted(posts.items())]
    return pa.Table.from_pylist(rows, selection.LINKS)


DATED, UNDATED = links({0: POST}), links({0: None})
FAILED = {"outcome": PageOutcome.TIMEOUT}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"source": "live", "fetched_at": at(900)}, FAILED),
        ({"fetched_at": at(900)}, {"source": "live"}),
        ({"fetched_at": at(-2)}, {"fetched_at": at(3)}),
        ({"fetched_at": at(2)}, {"fetched_at": at(-3)}),
        ({"fetched_at": at(-2)}, {"fetched_at": at(2)}),
        # within a day no capture is nearer
        ({"fetched_at": at(-0.4)}, {"fetched_at": at(0.4)}),
        ({"digest": "a", "final_url": "z"}, {"digest": "b", "final_url": "a"}),
        ({"source": "live", **FAILED, "fetched_at": at(9)}, {"source": "live", **FAILED}),
        (FAILED, {"source": "live", **FAILED, "fetched_at": at(9)}),
        # what may not be used is as good as none
        ({"source": "live", "fetched_at": at(9)}, {"outcome": PageOutcome.OPTED_OUT}),
    ],
)
def test_the_better_observation_is_selected(better: dict[str, Any], worse: dict[str, Any]) -> None:
    good, bad = observation(**better), observation(**worse)
    for rows in ((good, bad), (bad, good)):
        (found,) = selection.select(table(*rows), DATED).to_pylist()
        found.pop("days_from_post")
        assert [found] == table(good).to_pylist()


def test_without_a_date_of_the_post_the_earliest_is_selected() -> None:
    early, near = observation(fetched_at=at(-400)), observation(fetched_at=at(1))
    for known, chosen, days in ((DATED, near, 1), (UNDATED, early, None)):
        (found,) = selection.select(table(near, early), known).to_pylist()
        assert (found["fetched_at"], found["days_from_post"]) == (chosen.fetched_at, days)


@pytest.mark.parametrize(
    ("moment", "days"),
    [
        (datetime.datetime(2016, 5, 3, 23, 59, 59), -1),
        (datetime.datetime(2016, 5, 4), 0),
        (datetime.datetime(2016, 5, 4, 23, 59, 59), 0),
        (datetime.datetime(2016, 5, 5), 1),
        (datetime.datetime(1999, 5, 5), -6209),
        (datetime.datetime(2027, 5, 4), 4017),
    ],
)
@pytest.mark.parametrize("source", ["live", "archive"])
def test_the_distance_is_in_whole_days(moment: datetime.datetime, days: int, source: str) -> None:
    row = observation(fetched_at=moment.replace(tzinfo=datetime.UTC), source=source)
    selected = selection.select(table(row), DATED)
    assert selected["days_from_post"].type == pa.int32()
    assert selected["days_from_post"].to_pylist() == [days]


def test_a_link_that_was_asked_again_ends_as_the_last_time() -> None:
    rows = [
        observation(source="live", outcome=outcome, fetched_at=at(days))
        for days, outcome in ((0, "timeout"), (1, "http_error"), (2, "tls_error"))
    ]
    for order in (rows, rows[::-1]):
        (found,) = selection.select(table(*order), DATED).to_pylist()
        assert found["outcome"] == "tls_error"


@given(
    st.lists(
        st.builds(
            observation,
            st.integers(0, 2),
            outcome=st.sampled_from(OUTCOMES),
            source=st.sampled_from(["live", "archive"]),
            fetched_at=st.sampled_from([at(-2), at(-0.3), at(0), at(2)]),
            digest=st.sampled_from([None, "x", "y"]),
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from([None, POST]), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)
def test_selection_is_one_row_a_link_whatever_the_order(
    rows: list[Observation], days: list[datetime.date | None], random: Any
) -> None:
    known = links(dict(enumerate(days)))
    selected = selection.select(table(*rows), known).to_pylist()
    ids = [row["link_id"] for row in selected]
    assert ids == sorted({row.link_id for row in rows})
    random.shuffle(rows)
    assert selection.select(table(*rows), known).to_pylist() == selected
    for row in selected:
        mine = [one for one in rows if one.link_id == row["link_id"]]
        good = [one for one in mine if one.outcome == "ok"]
        archived = [one for one in good if one.source == "archive"] or good
        day = days[row["link_id"][0]]
        if archived:
            assert row["outcome"] == "ok" and row["source"] == archived[0].source
            least = min(abs((one.fetched_at.date() - day).days) for one in archived) if day else 0
            same = [
                one.fetched_at
                for one in archived
                if not day or abs((one.fetched_at.date() - day).days) == least
            ]
            assert row["fetched_at"] == min(same)


def test_a_capture_is_chosen_by_content_before_names_of_files() -> None:
    for column in RESPONSE_COLUMNS:
        low, high = ("ok", "too_large") if column == "outcome" else ("a", "b")
        values: tuple[Any, Any] = (200, 201) if column in ("status", "bytes") else (low, high)
        chosen = []
        for files in (("x", "y"), ("y", "x")):
            pair = (
                observation(warc_file=name, **{column: value})
                for name, value in zip(files, values, strict=True)
            )
            (row,) = selection.select(table(*pair), DATED).to_pylist()
            chosen.append(row[column])
        assert chosen == [values[0]] * 2


def test_of_a_link_that_nobody_knows_the_distance_is_unknown() -> None:
    (found,) = selection.select(table(observation(7)), DATED).to_pylist()
    assert found["days_from_post"] is None
