"""A post that comes more often than once: one row of it stays, the same in any order."""

import itertools
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import canonical, repeats
from crawl.schema import ID, SUBMISSIONS


def test_rows_are_combined_into_one_a_post_by_what_they_say_alone() -> None:
    def table(*rows: tuple[str, str, int]) -> pa.Table:
        made = [
            {
                "link_id": canonical.link_id(f"http://{host}"),
                "url_key": f"http://{host}",
                "fetch_url": f"https://{host}/",
                "post_id": name,
                "score": score,
            }
            for host, name, score in rows
        ]
        return pa.Table.from_pylist(made, SUBMISSIONS)

    rows = [("a.com", "1", 3), ("b.com", "1", 4), ("a.com", "2", 5), ("a.com", "1", 7)]
    left_out: Counter[str] = Counter()
    found = repeats.combine(table(*rows), left_out)
    assert left_out == {"repeated": 1}
    assert sorted(zip(found["url_key"].to_pylist(), found["score"].to_pylist(), strict=True)) == [
        ("http://a.com", 5), ("http://a.com", 7), ("http://b.com", 4)
    ]  # fmt: skip
    ids = found["link_id"].to_pylist()
    assert ids == sorted(ids)
    for order in itertools.permutations(rows):
        assert repeats.combine(table(*order)) == found
    assert repeats.combine(table()).num_rows == 0


NAMES = st.sampled_from(["", "a", "b", "c", "aa"])
SAID = pa.schema([("text", pa.string()), ("post_id", pa.string()), ("score", pa.int32())])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": NAMES, "post_id": NAMES, "score": st.sampled_from([None, 0, 1])}
        ),
        max_size=12,
    )
)
def test_a_copy_says_all_that_one_before_says(rows: list[dict[str, object]]) -> None:
    found = repeats.copies(pa.RecordBatch.from_pylist(rows, SAID))
    marks = [False] * len(rows) if found is None else found.tolist()
    for place, (row, is_copy) in enumerate(zip(rows, marks, strict=True)):
        assert not is_copy or row in rows[:place]


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        ("abacaba", "abacaba"),
        ("xxxxxxx", "abacaba"),  # an address that is posted again and again
        ("abacaba", [""] * 7),  # a list: its lines have no ids
    ],
)
def test_every_plain_copy_is_seen_at_once(texts: str, ids: Sequence[str]) -> None:
    rows = [{"text": text, "post_id": name} for text, name in zip(texts, ids, strict=True)]
    found = repeats.copies(pa.RecordBatch.from_pylist(rows, SAID))
    assert found is not None
    assert found.tolist() == [False, False, True, False, True, True, True]
    assert repeats.copies(pa.RecordBatch.from_pylist(rows[:2], SAID)) is None


def test_ids_are_compared_where_they_begin() -> None:
    ids = [bytes([number]) * 8 + bytes([number + 1]) * 8 for number in range(9)]
    column = pa.chunked_array([pa.array(ids, ID)]).slice(3, 4)
    found = repeats.halves_of(column)
    assert [half.tobytes() for half in found] == ids[3:7]
