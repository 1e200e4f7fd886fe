"""Bodies: codings undone within bounds, charsets found, kinds told."""

import gzip
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawl import content
from tests.web_faults import BOMB_BYTES, bomb, bomb_in_a_bomb

LIMIT = 100_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", PACK)
@given(st.binary(max_size=2000))
def test_what_was_coded_comes_back(coding: str, body: bytes) -> None:
    assert content.decode(PACK[coding](body), coding, LIMIT) == body


def test_codings_are_undone_in_reverse_order() -> None:
    body = gzip.compress(brotli.compress(b"text"))
    assert content.decode(body, "br, gzip", LIMIT) == b"text"
    assert content.decode(b"text", None, LIMIT) == b"text"


@pytest.mark.parametrize("coding", [coding for coding in PACK if coding != "identity"])
def test_a_bomb_is_stopped_and_its_head_is_still_known(coding: str) -> None:
    bomb = PACK[coding](b"<html>" + b"\x00" * 10_000_000)
    with pytest.raises(content.TooLarge):
        content.decode(bomb, coding, LIMIT)
    assert content.head(bomb, coding).startswith(b"<html>")
    assert len(content.head(bomb, coding)) == content.HEAD_BYTES


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_bomb_is_told_by_how_it_grows_before_it_is_too_long(coding: str) -> None:
    body = body_of(bomb_in_a_bomb() if "," in coding else bomb(coding))
    assert len(content.decode(body, coding, 2**30)) > BOMB_BYTES * 0.9
    with pytest.raises(content.TooLarge, match=r"more than \d{7,8} bytes"):
        content.decode(body, coding, 2**30, 200.0)


def table(rows: int) -> bytes:
    """A page whose markup repeats itself, as a shop's list does."""
    words = random.Random(1)
    row = (
        '<tr class="row" role="row"><td class="cell" data-label="Name"><a class="link" '
        'href="/item/{0}">Item {0}</a></td><td class="cell" data-label="State"><span class="badge '
        'badge-ok">{1} in stock</span></td><td class="cell" data-label="Buy"><button type="button" '
        'class="btn btn-primary btn-sm" data-toggle="tooltip" title="Put it into the '
        'basket">Buy</button></td></tr>\n'
    )
    told = "".join(row.format(number, words.randrange(4)) for number in range(rows))
    return f"<html><body><table>{told}</table></body></html>".encode()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_page_that_grows_fifty_times_is_no_bomb(coding: str) -> None:
    page = table(6000)
    body = PACK[coding](page)
    ratio = len(page) / len(body)
    assert len(page) > 2 * content.FREE_BYTES and ratio >= 50
    assert content.decode(body, coding, 2**30, 200.0) == page
    with pytest.raises(content.TooLarge):
        content.decode(body, coding, 2**30, ratio - 1)


def test_growth_counts_from_what_was_transferred_and_beyond_a_mebibyte() -> None:
    page = bytes(content.FREE_BYTES)
    for body, coding in ((gzip.compress(page), "gzip"), (brotli.compress(page), "br")):
        assert content.decode(body, coding, 2**30, 2.0) == page
    more = bytes(content.FREE_BYTES + 1)
    with pytest.raises(content.TooLarge):
        content.decode(gzip.compress(more), "gzip", 2**30, 2.0)
    # Each of the two codings grows less than the bound; both together do not.
    twice = gzip.compress(gzip.compress(more * 4, 1), 9)
    once = gzip.decompress(twice)
    assert len(more) * 4 / len(once) < 500 < len(more) * 4 / len(twice)
    assert content.decode(once, "gzip", 2**30, 500.0) == more * 4
    with pytest.raises(content.TooLarge):
        content.decode(twice, "gzip, gzip", 2**30, 500.0)


def test_a_coding_that_is_said_twice_may_have_been_used_once() -> None:
    rules = b"user-agent: *\ndisallow: /"
    assert content.first(gzip.compress(rules), "gzip, gzip", 100) == rules
    assert content.first(gzip.compress(gzip.compress(rules)), "gzip, gzip", 100) == rules
    assert content.decode(gzip.compress(rules), "gzip, gzip", LIMIT) == rules
    with pytest.raises(content.Undecodable):
        content.first(gzip.compress(rules), "br, gzip", 100)


def test_what_is_too_long_between_two_codings_is_too_long() -> None:
    # cut at the bound, and undone on, it would be taken for a body that breaks off
    inner = gzip.compress(b"<p>short") + bytes(10_000_000)
    with pytest.raises(content.TooLarge):
        content.decode(gzip.compress(inner), "gzip, gzip", LIMIT)


def test_a_zstd_window_is_as_large_as_a_web_server_may_ask_for_and_no_larger() -> None:
    page = b"<p>" + random.Random(1).randbytes(1000)
    for log, whole in ((23, True), (24, False), (27, False)):  # RFC 9659: 8 MiB
        settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=log)
        packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
        body = packer.compress(page) + packer.flush()
        assert content.head(body, "zstd") == (page if whole else b"")[: content.HEAD_BYTES]
        if not whole:
            with pytest.raises(content.Undecodable, match="zstd"):
                content.decode(body, "zstd", LIMIT)


POOR = """
import resource, sys
from pathlib import Path
from typing import Any
from crawl import content

coding, path = sys.argv[1:]
body = Path(path).read_bytes()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for most, ratio in ((20 << 20, 1e9), (1 << 40, (20 << 20) / len(body))):
    try:
        content.decode(body, coding, most, ratio)
    except content.TooLarge:
        print("too large")
print(len(content.first(body, coding, 1 << 20)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit means address space on Linux alone")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_takes_no_more_memory_than_its_bound(tmp_path: Path, coding: str) -> None:
    """A quarter of a GiB, where there is not room for half of that."""
    pack = {
        "gzip": lambda page: gzip.compress(page, 1),
        "deflate": lambda page: zlib.compress(page, 1),
        "br": lambda page: brotli.compress(page, quality=1),
        "zstd": PACK["zstd"],
    }[coding]
    (tmp_path / "bomb").write_bytes(pack(bytes(1 << 28)))
    done = subprocess.run(
        [sys.executable, "-c", POOR, coding, str(tmp_path / "bomb")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split("\n")[:3] == ["too large", "too large", str(1 << 20)], done.stderr


def test_exactly_the_limit_passes() -> None:
    assert len(content.decode(gzip.compress(b"x" * LIMIT), "gzip", LIMIT)) == LIMIT
    with pytest.raises(content.TooLarge):
        content.decode(b"x" * (LIMIT + 1), "", LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "compress"])
def test_what_is_not_what_it_says_is_undecodable(coding: str) -> None:
    with pytest.raises(content.Undecodable):
        content.decode(b"\xff\xfe\xfdneither", coding, LIMIT)
    assert content.head(b"\xff\xfe\xfdneither", coding) == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_was_decoded_already_is_taken_as_it_is(coding: str) -> None:
    assert content.decode(b"<html><p>x", coding, LIMIT) == b"<html><p>x"


@pytest.mark.parametrize("coding", ["UTF-8", "none", "identity", "8bit", "rot13", ";", ""])
def test_what_is_no_coding_is_passed_over(coding: str) -> None:
    assert content.decode(b"\xff<p>x", coding, LIMIT) == b"\xff<p>x"
    packed = gzip.compress(b"\xff<p>x")
    assert content.decode(packed, f"gzip, {coding}", LIMIT) == b"\xff<p>x"
    assert content.first(packed, f"{coding},gzip", 2) == b"\xff<"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bound_of_any_size_costs_no_more_than_there_is(coding: str) -> None:
    assert content.decode(PACK[coding](b"<p>" * 2**20), coding, 2**45) == b"<p>" * 2**20


def test_a_body_that_breaks_off_gives_what_it_holds() -> None:
    body = gzip.compress(b"many words " * 5000, 1)
    assert content.decode(body[:-20], "gzip", LIMIT).startswith(b"many words many")


def test_members_and_padding() -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"two") + b"\x00\x00"
    assert content.decode(body, "gzip", LIMIT) == b"one two"
    spread = gzip.compress(bytes(range(256)) * 300, 0) * 2  # each over many pieces
    assert content.decode(spread, "gzip", 10**6) == bytes(range(256)) * 600
    frames = PACK["zstd"](b"one ") + PACK["zstd"](b"two")
    assert content.decode(frames, "zstd", LIMIT) == b"one two"


def test_more_members_than_any_honest_body_has_are_refused() -> None:
    # one by one, each copying the rest, this would take minutes
    body = gzip.compress(b"", mtime=0) * 500_000
    assert content.head(body, "gzip") == b""
    with pytest.raises(content.Undecodable, match="members"):
        content.decode(body, "gzip", LIMIT)


def test_the_first_bytes_of_a_body_however_long() -> None:
    assert content.first(gzip.compress(b"abc" * 10**6), "gzip", 4) == b"abca"
    with pytest.raises(content.Undecodable):
        content.first(b"abc", "x-compress", 4)


@pytest.mark.parametrize(
    ("status", "kind", "body", "cut", "outcome"),
    [
        (200, "text/html", b"<p>", False, "ok"),
        (203, "text/html", b"<p>", False, "ok"),
        (204, "text/html", b"", False, "http_error"),
        (205, "text/html", b"", False, "http_error"),
        (206, "text/html", b"<p>", False, "http_error"),
        (404, "text/html", b"<p>", False, "http_error"),
        (304, "text/html", b"", True, "http_error"),
        (200, "text/html", b"<p>", True, "too_large"),
        (200, "text/html", b"", True, "too_large"),
        (200, None, b"", True, "too_large"),
        (200, "image/png", b"", True, "not_html"),
        (200, "text/html", b"%PDF-1.4", True, "not_html"),
        (200, "text/plain", b"words", False, "not_html"),
    ],
)
def test_outcomes(status: int, kind: str | None, body: bytes, cut: bool, outcome: str) -> None:
    assert content.outcome(status, kind, None, body, cut=cut) == outcome


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("\ufeffé".encode(), "text/html; charset=latin-1", "é"),
        ("\ufeffé".encode("utf-16-le"), None, "é"),
        ("é".encode("latin-1"), "text/html; charset=ISO-8859-1", "é"),
        (b"\x93x\x94", "text/html; charset=iso-8859-1", "“x”"),
        ("é".encode(), 'text/html; charset="UTF-8"', "é"),
        ('<meta charset="windows-1251">я'.encode("cp1251"), "text/html", None),
        ("<meta charset=utf-16>é".encode(), "text/html", "<meta charset=utf-16>é"),
        ("日本".encode("shift_jis"), "text/html; charset=Shift_JIS", "日本"),
        ("é".encode(), "text/html; charset=nonsense", "é"),
        ("é".encode(), "text/html; charset=punycode", "é"),
        ("<meta charset=utf-8>é".encode("latin-1"), "x; charset=latin-1", "<meta charset=utf-8>é"),
        ("все семьи похожи друг на друга".encode("cp1251"), None, "все семьи похожи друг на друга"),
        ("é".encode(), None, "é"),
        (b"a\xffb", "text/html; charset=utf-8", "a\ufffdb"),
        (b"", None, ""),
    ],
)
def test_charsets(body: bytes, content_type: str | None, text: str | None) -> None:
    found = content.text(body, content_type)
    assert found == text if text is not None else found.endswith("я")


@given(st.binary(max_size=500), st.one_of(st.none(), st.text(max_size=30)))
def test_any_bytes_become_text(body: bytes, kind: str | None) -> None:
    content.text(body, f"text/html; charset={kind}" if kind else None).encode()


@pytest.mark.parametrize(
    ("kind", "first", "html"),
    [
        ("text/html", b"just text", True),
        ("TEXT/HTML; charset=x", b"", True),
        ("application/xhtml+xml", b"<html", True),
        ("text/html", b"%PDF-1.4", False),
        ("text/html", b"\x89PNG", False),
        (None, b"  <!DOCTYPE html>", True),
        (None, b"plain", False),
        ("text/plain", b"<body>", True),
        ("text/plain", b"words", False),
        ("image/png", b"<html>", False),
        ("application/json", b"{}", False),
    ],
)
def test_kinds(kind: str | None, first: bytes, html: bool) -> None:
    assert content.is_html(kind, first) is html
    assert not html or content.may_be_html(kind)


@given(
    rows=st.integers(0, 20), level=st.integers(0, 9), wbits=st.sampled_from([31, 15, -15]),
    strategy=st.integers(0, 4), most=st.sampled_from([0, 1, 1024, 5000]),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 7)), max_size=3),
    rest=st.binary(max_size=12),
)  # fmt: skip
@example(rows=5, level=6, wbits=31, strategy=0, most=1024, flips=[(10, 0)], rest=b"")
@example(rows=5, level=1, wbits=31, strategy=0, most=1024, flips=[(86, 6)], rest=b"")
def test_what_is_damaged_is_what_zlib_says(
    rows: int,
    level: int,
    wbits: int,
    strategy: int,
    most: int,
    flips: list[tuple[int, int]],
    rest: bytes,
) -> None:
    """A quicker decoder that took another view of damage would make another page of it: isal's does
    of the examples."""
    packer = zlib.compressobj(level, zlib.DEFLATED, wbits, strategy=strategy)
    body = bytearray(packer.compress(table(rows)) + packer.flush())
    for place, bit in flips:
        body[place % len(body)] ^= 1 << bit
    found, judged = (
        decoded(library, bytes(body) + rest, wbits, most) for library in (content.zlib_ng, zlib)
    )
    assert found == judged


def decoded(library: Any, body: bytes, wbits: int, most: int) -> tuple[bytes, bool, bytes] | None:
    stream = library.decompressobj(wbits=wbits)
    try:
        return stream.decompress(body, most), stream.eof, stream.unused_data
    except library.error:
        return None


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "", None])
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3 * content.PIECE), min_size=1, max_size=4))
def test_ever_longer_beginnings_are_those_of_the_whole(
    coding: str | None, sizes: list[int]
) -> None:
    page = table(7000)
    body = page
    for name in filter(None, (coding or "").split(", ")):
        body = PACK[name](body)
    opened = content.Opened(body, coding, max(sizes))
    assert [opened.first(size) for size in sizes] == [page[:size] for size in sizes]


def test_members_behind_a_long_one_are_read() -> None:
    for long in (bytes(5 * content.PIECE // 2), bytes(content.PIECE), table(9000)):
        body = gzip.compress(long) + gzip.compress(b"two")
        assert content.decode(body, "gzip", 2**30) == long + b"two"
