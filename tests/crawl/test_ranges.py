"""Pieces of archives are read sorted and together, and what fails is told or asked again."""

import itertools
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import ranges
from crawl.config import CrawlConfig
from crawl.ranges import GAP_BYTES, RANGE_BYTES, Piece, Source, Unreachable, coalesced
from crawl.schema import BadInput, Capture
from tests.common_crawl import Served, served

PIECES = st.lists(
    st.builds(
        Piece,
        st.sampled_from(["a", "b"]),
        st.integers(0, 4 * RANGE_BYTES) | st.integers(0, 3 * GAP_BYTES),
        st.integers(1, GAP_BYTES) | st.just(2 * RANGE_BYTES),
        st.integers(),
    ),
    max_size=12,
)


@given(PIECES)
def test_neighbours_are_read_as_one_and_nothing_far_between(pieces: list[Piece]) -> None:
    found = list(coalesced(pieces))
    assert sorted(p for one in found for p in one.pieces) == sorted(pieces)
    places = [(one.file, one.start) for one in found]
    assert places == sorted(places)
    for one in found:
        ends = [piece.offset + piece.length for piece in one.pieces]
        assert (one.start, one.end) == (one.pieces[0].offset, max(ends))
        assert len(one.pieces) == 1 or one.end - one.start <= RANGE_BYTES
        reach = one.start
        for piece, end in zip(one.pieces, ends, strict=True):
            assert piece.file == one.file and piece.offset - reach <= GAP_BYTES
            reach = max(reach, end)


@pytest.mark.parametrize(("gap", "count"), [(0, 1), (GAP_BYTES, 1), (GAP_BYTES + 1, 2)])
def test_a_gap_is_read_up_to_its_bound(gap: int, count: int) -> None:
    pieces = [Piece("a", 100 + gap, 9), Piece("a", 7, 93), Piece("b", 100, 9)]
    assert len(list(coalesced(pieces))) == count + 1


@given(PIECES)
def test_pieces_that_could_be_read_together_are(pieces: list[Piece]) -> None:
    found = list(coalesced(pieces))
    for one, other in itertools.pairwise(found):
        end = max(other.pieces[0].offset + other.pieces[0].length, one.end)
        near = one.file == other.file and other.start - one.end <= GAP_BYTES
        assert not near or end - one.start > RANGE_BYTES


@given(PIECES)
def test_what_is_asked_for_at_once_has_a_bound(pieces: list[Piece]) -> None:
    everything = list(coalesced(pieces))
    windows = list(ranges.windows(everything))
    assert [one for window in windows for one in window] == everything
    for window in windows:
        assert len(window) <= ranges.TOGETHER
        size = sum(one.end - one.start for one in window)
        assert len(window) == 1 or size <= ranges.WINDOW_BYTES


CONTENT = bytes(range(256)) * 4


def source(base: str, waits: list[float] | None = None, **settings: object) -> Source:
    def sleep(seconds: float) -> None:
        assert waits is not None, "nothing was to be asked again"
        waits.append(seconds)

    return Source(CrawlConfig(archive_base=base, **settings), sleep)  # type: ignore[arg-type]


def answers(found: Source, *pieces: Piece) -> dict[int, bytes | Capture]:
    return {piece.of: answer for piece, answer in found.read(pieces)}


@pytest.fixture(params=["folder", "file URI", "server", "no slash"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(CONTENT)
    if request.param == "folder":
        return str(tmp_path)
    if request.param == "file URI":
        return f"file://{tmp_path}/"
    told = request.getfixturevalue("store")
    return told.base if request.param == "server" else told.base.rstrip("/")


@pytest.fixture
def store(tmp_path: Path) -> Served:  # type: ignore[misc]
    with served(tmp_path) as told:
        yield told


def test_what_is_not_there_is_said_and_stops_nothing(base: str) -> None:
    found = answers(
        source(base),
        Piece("a/x", 1000, 24, 1),
        Piece("a/x", 3, 5, 2),
        Piece("none", 0, 5, 3),
        Piece("a/x", 1020, 5, 4),
        Piece("a", 0, 5, 5),
        Piece("a/x", 1024 + 2 * GAP_BYTES, 9, 6),
    )
    assert found == {
        1: CONTENT[1000:1024],
        2: CONTENT[3:8],
        3: Capture.MISSING,
        4: Capture.CUT_OFF,
        5: Capture.MISSING,
        6: Capture.CUT_OFF,
    }


def test_a_server_is_asked_for_parts_by_name(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    found = source(store.base, user_agent="webtext/1 (+https://example.org/bot)")
    assert answers(found, Piece("x", 20, 5, 1), Piece("x", 3, 5, 2)) == {
        1: CONTENT[20:25],
        2: CONTENT[3:8],
    }
    assert store.log == [("/x", "bytes=3-24")]
    assert store.agents == {"webtext/1 (+https://example.org/bot)"}


def test_a_server_that_fails_is_asked_again_later_and_later(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    (tmp_path / "y").write_bytes(CONTENT)
    store.failures = 3
    waits: list[float] = []
    found = answers(source(store.base, waits), Piece("x", 0, 5, 1), Piece("y", 0, 6, 2))
    assert found == {1: CONTENT[:5], 2: CONTENT[:6]}
    assert waits == [1.0, 2.0, 4.0]


def test_only_what_failed_is_asked_for_again(store: Served, tmp_path: Path) -> None:
    for name in "wxyz":
        (tmp_path / name).write_bytes(CONTENT)
    found = source(store.base, waits := [])
    assert answers(found, Piece("w", 0, 5, 1)) == {1: CONTENT[:5]}
    store.failures = 1
    assert len(answers(found, *(Piece(name, 0, 5, name) for name in "xyz"))) == 3
    assert waits == [1.0] and len(store.log) == 1 + 3 + 1


def test_a_server_that_goes_on_failing_is_named(store: Served) -> None:
    store.status = 503
    waits: list[float] = []
    with pytest.raises(Unreachable, match=rf"{store.base}x: bytes 7 to 12: .*503.*asked 7 times"):
        answers(source(store.base, waits), Piece("x", 7, 5))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_server_that_is_gone_is_named(tmp_path: Path) -> None:
    with served(tmp_path) as told:
        pass
    with pytest.raises(Unreachable, match=f"{told.base}x.*run the same command again"):
        answers(source(told.base, []), Piece("x", 7, 5))


def test_a_server_that_refuses_is_not_pressed(store: Served) -> None:
    store.status = 403
    with pytest.raises(Unreachable, match=r"403.*refused"):
        answers(source(store.base), Piece("x", 7, 5), Piece("y", 7, 5))
    assert len(store.log) == 1


def test_a_server_that_gives_no_parts_is_found_out_at_once(store: Served, tmp_path: Path) -> None:
    for name in "xyz":
        (tmp_path / name).write_bytes(CONTENT)
    store.gives_parts = False
    with pytest.raises(BadInput, match=r"crawl\.archive_base: .*gives no parts"):
        answers(source(store.base), *(Piece(name, 7, 5) for name in "xyz"))
    assert len(store.log) == 1


def test_a_server_that_gives_less_is_asked_for_the_rest(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.most = 10
    found = answers(source(store.base), Piece("x", 3, 25, 1))
    assert found == {1: CONTENT[3:28]}
    assert [asked for _, asked in store.log] == ["bytes=3-27", "bytes=13-27", "bytes=23-27"]
    pieces = Piece("x", 1005, 10, 1), Piece("x", 1020, 5, 2)
    assert answers(source(store.base), *pieces) == {1: CONTENT[1005:1015], 2: Capture.CUT_OFF}


def test_a_server_that_gives_next_to_nothing_is_not_asked_for_ever(
    store: Served, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.most = 1
    assert answers(source(store.base), Piece("x", 0, 100, 1)) == {1: Capture.CUT_OFF}
    assert len(store.log) == ranges.MOST_PARTS


def test_a_server_that_fails_within_a_range_goes_on_there(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.most, store.failures = 10, 1
    found = source(store.base, waits := [])
    assert answers(found, Piece("x", 0, 15, 1)) == {1: CONTENT[:15]}
    assert waits == [1.0]


@pytest.mark.parametrize("place", [0, 7])
def test_a_whole_file_is_refused_before_it_is_read(
    store: Served, tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.gives_parts = False
    read: list[int] = []
    whole = aiohttp.ClientResponse.read

    async def counted(answer: aiohttp.ClientResponse) -> bytes:
        read.append(answer.status)
        return await whole(answer)

    monkeypatch.setattr(aiohttp.ClientResponse, "read", counted)
    with pytest.raises(BadInput, match="gives no parts"):
        answers(source(store.base), Piece("x", place, 5))
    assert not read


def test_a_file_that_was_asked_for_whole_may_come_whole(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.gives_parts = False
    assert answers(source(store.base), Piece("x", 0, 1024, 1)) == {1: CONTENT}


def test_other_bytes_than_those_asked_for_are_not_taken(store: Served, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    store.shift = 1
    with pytest.raises(Unreachable, match="other bytes"):
        answers(source(store.base, []), Piece("x", 7, 5))


@pytest.mark.parametrize(("place", "told"), [("none", "is no folder"), ("nonsense://x", "rotocol")])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, place: str, told: str) -> None:
    named = place if "://" in place else str(tmp_path / place)
    with pytest.raises(BadInput, match=rf"crawl\.archive_base: .*{told}"):
        source(named)
