"""Connected groups."""

from hypothesis import given
from hypothesis import strategies as st

from dedup.union_find import groups

NAMES = st.integers(0, 12).map(lambda number: bytes([number]))
PAIRS = st.lists(st.tuples(NAMES, NAMES), max_size=30)


def closure(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The naive answer: grow every member's group until nothing changes."""
    found = {member: {member} for pair in pairs for member in pair}
    for _ in found:
        for a, b in pairs:
            union = found[a] | found[b]
            for member in union:
                found[member] = union
    return {member: min(group) for member, group in found.items()}


@given(PAIRS)
def test_groups_are_the_closure(pairs: list[tuple[bytes, bytes]]):
    assert groups(pairs) == closure(pairs)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(pairs, random):
    shuffled = [(b, a) for a, b in pairs]
    random.shuffle(shuffled)
    assert list(groups(shuffled).items()) == list(groups(pairs).items())


def test_a_group_that_is_joined_at_its_far_end_stays_one():
    names = [bytes([number]) for number in range(5)]
    links = [(3, 4), (2, 3), (1, 2), (0, 4)]
    assert set(groups((names[a], names[b]) for a, b in links).values()) == {names[0]}
