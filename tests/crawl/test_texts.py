"""Texts that are kept: found by all that they were made of, or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from crawl import texts
from crawl.extractor import Reply
from crawl.schema import DocumentOutcome
from crawl.texts import Row, Text, Texts

WARC = "00000000-ffffffff-live-0.warc.gz"


def row(number: int, **other: Any) -> Row:
    address = f"http://a.com/{number}"
    made: Row = {
        "link_id": number.to_bytes(2, "big") * 8, "url": address, "final_url": address,
        "warc_file": WARC, "warc_offset": number * 100, "warc_length": 100,
        "digest": f"sha1:{number}", "content_type": "text/html",
    }  # fmt: skip
    return made | other


def reply(number: int, size: int = 100) -> Reply:
    words = (f"word {number} " * size)[:size]
    return Reply(DocumentOutcome.OK, text=words, title="é", date="2016-05-04")


def some(count: int) -> list[Text]:
    return [(row(number), reply(number)) for number in range(count)]


def write(folder: Path, *made: Text, name: str = WARC) -> Path:
    path = texts.path_of(folder, name)
    texts.write(path, made)
    return path


def test_each_page_has_the_text_that_was_made_of_it(tmp_path: Path) -> None:
    made = [*some(300), (row(300), Reply(DocumentOutcome.EMPTY))]
    write(tmp_path, *made)
    kept = Texts(tmp_path)
    assert [kept.find(page) for page, _ in made] == [told for _, told in made]
    assert kept.find(row(301)) is None
    assert [kept.find(page) for page, _ in reversed(made)] == [told for _, told in reversed(made)]


@pytest.mark.parametrize(
    "other",
    [
        {"warc_offset": 7}, {"warc_length": 7}, {"digest": "sha1:7"}, {"digest": None},
        {"final_url": "http://a.com/x"}, {"final_url": None, "url": "http://a.com/x"},
        {"content_type": None}, {"content_type": "text/html; charset=latin-1"},
    ],
)  # fmt: skip
def test_a_text_of_anything_else_is_not_taken_for_it(tmp_path: Path, other: dict[str, Any]) -> None:
    write(tmp_path, *some(3))
    kept = Texts(tmp_path)
    assert kept.find(row(1)) == reply(1)
    assert kept.find(row(1, **other)) is None
    assert kept.find(row(1, warc_file="another.warc.gz")) is None


def test_the_address_of_the_link_matters_only_where_there_is_no_other(tmp_path: Path) -> None:
    write(tmp_path, (row(1, url="http://a.com/asked"), reply(1)))
    assert Texts(tmp_path).find(row(1, url="http://b.com/")) == reply(1)


def test_two_texts_of_one_link_are_told_apart_wherever_groups_end(tmp_path: Path) -> None:
    made = [(row(1, warc_offset=n), reply(n)) for n in range(3 * texts.GROUP_ROWS)]
    write(tmp_path, *made)
    kept = Texts(tmp_path)
    assert [kept.find(page) for page, _ in made] == [told for _, told in made]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("written"), *some(70)).read_bytes()


@bounded(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_byte_never_makes_another_text(
    tmp_path: Path, written: bytes, at: float, mask: int
) -> None:
    damaged = bytearray(written)
    damaged[int(at * len(damaged))] ^= mask
    texts.path_of(tmp_path, WARC).write_bytes(damaged)
    kept = Texts(tmp_path)
    for page, told in some(70):
        assert kept.find(page) in (None, told)


def test_a_torn_file_holds_nothing(tmp_path: Path, written: bytes) -> None:
    for size in [*range(0, len(written), 97), len(written) - 1]:
        texts.path_of(tmp_path, WARC).write_bytes(written[:size])
        assert Texts(tmp_path).find(row(1)) is None
    texts.path_of(tmp_path, WARC).write_bytes(written)
    assert Texts(tmp_path).find(row(1)) == reply(1)


class Killed(BaseException):
    """Stands for the end of the process: nothing that follows it is done."""


@contextlib.contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Lets so many steps be done, and no more."""
    left = [steps]

    def step(function: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **named: Any) -> Any:
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **named)

        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "rename", step(Path.rename))
        patched.setattr(Path, "unlink", step(Path.unlink))
        patched.setattr(os, "fsync", step(os.fsync))
        patched.setattr(texts, "made_of", step(texts.made_of))
        yield


def test_killed_at_any_step_it_is_whole_or_not_there_and_is_made_again(tmp_path: Path) -> None:
    made, steps, is_killed = some(5), 0, True
    while is_killed:
        folder = tmp_path / str(steps)
        is_killed = False
        try:
            with killed_after(steps):
                write(folder, *made)
        except Killed:
            is_killed = True
        found = [Texts(folder).find(page) for page, _ in made]
        there = texts.path_of(folder, WARC).exists()
        assert found == ([told for _, told in made] if there else [None] * 5)
        write(folder, *made)
        assert Texts(folder).find(row(4)) == reply(4)
        steps += 1
    assert steps > 7


def test_what_one_attempt_writes_no_other_disturbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> Iterator[Text]:
        yield from some(3)
        write(tmp_path, *some(3))  # the other one comes and goes meanwhile
        yield from some(4)[3:]

    texts.write(texts.path_of(tmp_path, WARC), slow())
    kept = Texts(tmp_path)
    assert [kept.find(row(n)) for n in range(5)] == [*(reply(n) for n in range(4)), None]
    assert [path.name for path in tmp_path.iterdir()] == [texts.path_of(tmp_path, WARC).name]


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def torn() -> Iterator[Text]:
        yield from some(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        texts.write(texts.path_of(tmp_path, WARC), torn())
    assert not list(tmp_path.iterdir())


def test_only_what_a_page_needs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *some(20 * texts.GROUP_ROWS))
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def watched(file: pq.ParquetFile, number: int) -> Any:
        read.append(number)
        return whole(file, number)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    kept = Texts(tmp_path)
    first = 5 * texts.GROUP_ROWS
    for number in range(first, first + 2 * texts.GROUP_ROWS):
        assert kept.find(row(number)) == reply(number)
    assert read == [5, 6]


def test_little_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> Iterator[Text]:
        for number in range(40):
            yield row(number), Reply(DocumentOutcome.OK, text=secrets.token_hex(300_000))

    path = texts.path_of(tmp_path, WARC)
    texts.write(path, made())
    with texts._opened(path) as file:
        groups = file.metadata.num_row_groups
    assert groups == 20  # two of 600,000 characters pass a million
    monkeypatch.setattr(texts, "HELD_BYTES", 5_000_000)
    kept = Texts(tmp_path)
    for number in range(40):
        found = kept.find(row(number))
        assert found and found.text and len(found.text) == 600_000
        assert sum(one.nbytes for one in kept._held.values()) <= 5_000_000
    assert len(kept._held) > 1
