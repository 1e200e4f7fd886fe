import errno
import io
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import metrics
from training.config import BadInput


def line(step: int, loss: float = 1.0) -> dict[str, float]:
    return {"step": step, "loss": loss}


def test_no_run_has_no_lines(tmp_path: Path) -> None:
    assert metrics.read(tmp_path / "nowhere") == []


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path / "run", 0) as lines:
        for step in (1, 2, 3):
            lines.write(line(step, step / 3))
            assert metrics.read(tmp_path / "run")[-1] == line(step, step / 3)


def test_resuming_cuts_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path, 0) as lines:
        for step in range(1, 8):
            lines.write(line(step))
    with metrics.Writer(tmp_path, 5) as lines:
        lines.write(line(6, 2.0))
    assert metrics.read(tmp_path) == [*(line(step) for step in range(1, 6)), line(6, 2.0)]


@contextmanager
def small_files() -> Iterator[None]:
    """No file grows past 100 bytes: a write over the border is a short one, as on a full disk.

    No fixture, which would also bind what pytest itself writes after the test.
    """
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)


def test_a_line_that_did_not_fit_is_an_error(tmp_path: Path) -> None:
    with small_files(), metrics.Writer(tmp_path, 0) as lines:
        lines.write(line(1, 0.5) | {"much": 1e300})
        lines.write(line(2, 0.5) | {"much": 1e300})
        assert (tmp_path / "metrics.jsonl").stat().st_size < 100
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            lines.write(line(3, 0.5) | {"much": 1e300})
    assert (tmp_path / "metrics.jsonl").stat().st_size == 100  # half of it is there, and told
    assert [each["step"] for each in metrics.read(tmp_path)] == [1, 2]


@pytest.mark.parametrize("damage", [b'{"step": 2, "lo', b"[2]", b"\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, damage: bytes) -> None:
    whole = b'{"step": 1, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + damage + b"\n" + whole)
    with pytest.raises(BadInput, match=r"metrics\.jsonl: line 2 is damaged .*; remove that line"):
        metrics.read(tmp_path)


def test_half_a_line_is_left_out_and_gone_after_a_resume(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path, 0) as lines:
        lines.write(line(1))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert metrics.read(tmp_path) == [line(1)]
    with metrics.Writer(tmp_path, 1) as lines:
        lines.write(line(2))
    assert metrics.read(tmp_path) == [line(1), line(2)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.data())
def test_a_crash_at_any_byte_costs_no_line_that_was_whole(
    tmp_path_factory: pytest.TempPathFactory, steps: int, data: st.DataObject
) -> None:
    """And a resume after any step that is still there makes the file one of that course alone."""
    folder = tmp_path_factory.mktemp("run")
    old = [line(step, 1 / 3) | {"seconds": 0.25} for step in range(1, steps + 1)]
    with metrics.Writer(folder, 0) as lines:
        for each in old:
            lines.write(each)
    path = folder / "metrics.jsonl"
    whole = path.read_bytes()
    left = data.draw(st.integers(0, len(whole)), "bytes that are left")
    path.write_bytes(whole[:left])
    kept = whole[:left].count(b"\n")
    assert metrics.read(folder) == old[:kept]
    after = data.draw(st.integers(0, kept), "the checkpoint's step")
    with metrics.Writer(folder, after) as lines:
        lines.write(line(after + 1, 9.0))
    assert metrics.read(folder) == [*old[:after], line(after + 1, 9.0)]


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    numbers = {"loss": 0.1 + 0.2, "lr": 5e-324, "tokens": float(2**53), "grad_norm": 1e300}
    with metrics.Writer(tmp_path, 0) as lines:
        lines.write({"step": 1} | numbers)
    assert metrics.read(tmp_path) == [{"step": 1} | numbers]


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path, 0) as lines:
        lines.write({"step": 1, "mfu": None, "applied": True})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1,"mfu":null,"applied":true}\n'


@pytest.mark.parametrize("count", [3, 1000])
def test_lines_of_later_steps_are_cut_off_wherever_they_begin(tmp_path: Path, count: int) -> None:
    for after in (0, 1, count // 2, count - 1, count, count + 5):
        with metrics.Writer(tmp_path, 0) as lines:
            for step in range(1, count + 1):
                lines.write(line(step))
        with metrics.path(tmp_path).open("ab") as file:
            file.write(b'{"step": 9')  # cut short by a crash
        with metrics.Writer(tmp_path, after) as lines:
            lines.write(line(after + 1))
        kept = min(after, count)
        steps = [each["step"] for each in metrics.read(tmp_path)]
        assert steps == [*range(1, kept + 1), after + 1]


def test_the_first_and_the_last_up_to_a_step_are_found(tmp_path: Path) -> None:
    assert metrics.first(tmp_path) is None and metrics.tail(tmp_path, 3) == []
    with metrics.Writer(tmp_path, 0) as lines:
        for step in range(1, 1001):
            lines.write(line(step))
    assert metrics.first(tmp_path) == line(1)
    assert metrics.tail(tmp_path, 3, until=500) == [line(498), line(499), line(500)]
    assert metrics.tail(tmp_path, 3, until=1) == [line(1)]
    assert metrics.tail(tmp_path, 5000) == metrics.read(tmp_path)


def test_lines_that_do_not_reach_the_disk_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a checkpoint that would know of them."""
    with metrics.Writer(tmp_path, 0) as lines:
        lines.write(line(1))
        lines.sync()

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=r"Input/output error: '.*metrics\.jsonl'"):
            lines.sync()


def test_a_file_that_is_cut_while_it_is_looked_at_has_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes back to an earlier step cuts it; whoever looks on is told its old length."""

    class Cut(io.BytesIO):
        def seek(self, place: int, whence: int = 0) -> int:
            return 300 if whence == os.SEEK_END else super().seek(place, whence)

    with metrics.Writer(tmp_path, 0) as lines:
        lines.write(line(1))
    monkeypatch.setattr(Path, "open", lambda *_: Cut())
    assert metrics.tail(tmp_path, 5) == []
