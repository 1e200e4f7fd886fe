"""Members are what any gzip reads."""

import gzip

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawl import members


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=3))
@example(b"", [])
def test_a_member_stands_for_its_pieces(head: bytes, rest: list[bytes]) -> None:
    plain = b"".join([head, *rest])
    assert gzip.decompress(members.compressed(head, *rest)) == plain
    assert gzip.decompress(members.stored(head, *rest)) == plain


@pytest.mark.parametrize("size", [65534, 65535, 65536, 131070, 131071, 300_000])
def test_a_body_of_any_length_is_stored(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    member = members.stored(b"head", body[:size])
    assert gzip.decompress(member) == b"head" + body[:size]
    assert size < len(member) < size + 100


def test_what_is_compressed_is_shorter() -> None:
    assert len(members.compressed(b"text " * 1000)) < 100
    assert len(members.stored(b"text " * 1000, b"x" * 500)) < 600
