"""Pairs to connected groups, each named by its smallest member: the order of the pairs cannot
matter."""

from collections.abc import Iterable


def groups(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """For every member of a pair, the smallest member of its connected group."""
    parent: dict[bytes, bytes] = {}
    for a, b in pairs:
        low, high = sorted((_root(parent, a), _root(parent, b)))
        parent[high] = low
    return {member: _root(parent, member) for member in sorted(parent)}


def _root(parent: dict[bytes, bytes], member: bytes) -> bytes:
    """The group's name; halves the path on its way."""
    parent.setdefault(member, member)
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member
