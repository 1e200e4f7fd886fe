"""TensorBoard's files, read back record by record."""

import errno
import math
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorboardX
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from training.board import Board

NAMES = ("loss", "grad_norm", "tokens_per_s", "applied")


def line(step: int, loss: float | None = None) -> dict[str, Any]:
    loss = 4.0 / step if loss is None else loss
    rates = {"tokens_per_s": 1000.0 + step, "applied": True, "mfu": None}
    return {"step": step, "loss": loss, "grad_norm": step / 8} | rates


def masked(content: bytes) -> int:
    """The checksum of a record, as its format stores it."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[Event]:
    """A length, its checksum, an event, its checksum, and so on."""
    content = path.read_bytes()
    while content:
        (length, of_length) = struct.unpack("<QI", content[:12])
        assert masked(content[:8]) == of_length
        body = content[12 : 12 + length]
        assert masked(body) == struct.unpack("<I", content[12 + length : 16 + length])[0]
        yield Event.FromString(body)
        content = content[16 + length :]


def events(folder: Path) -> list[Event]:
    """Of all files of a run, as TensorBoard takes them: by the order of their names."""
    paths = sorted((folder / "tensorboard").glob("*tfevents*"))
    return [event for path in paths for event in records(path)]


def shown(folder: Path) -> dict[str, dict[int, float]]:
    """The curves: where a session starts at a step, what there was from that step on is gone."""
    curves: dict[str, dict[int, float]] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            for name, curve in curves.items():
                curves[name] = {step: v for step, v in curve.items() if step < event.step}
        for value in event.summary.value:
            curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return curves


def write(folder: Path, after: int, *lines: dict[str, Any]) -> None:
    with Board(folder, after) as board:
        for each in lines:
            board.write(each)


def test_each_metric_stands_at_each_step(tmp_path: Path) -> None:
    write(tmp_path, 0, *map(line, range(1, 6)))
    curves = shown(tmp_path)
    assert curves.keys() == {*NAMES}
    for name in NAMES:
        wanted = {step: float(line(step)[name]) for step in range(1, 6)}
        assert curves[name] == pytest.approx(wanted)  # single precision is all that is drawn


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, {"step": 1, "loss": 1.0, "grad_norm": None}, {"step": 2, "loss": math.inf})
    assert shown(tmp_path) == {"loss": {1: 1.0, 2: math.inf}}


def test_a_validation_loss_stands_where_there_was_one(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1), line(2) | {"validation_loss": 3.5}, line(3))
    assert shown(tmp_path)["validation_loss"] == {2: 3.5}


def test_after_a_resume_the_course_given_up_is_hidden(tmp_path: Path) -> None:
    write(tmp_path, 0, *map(line, range(1, 8)))
    write(tmp_path, 4, line(5, loss=9.0), line(6, loss=8.0))
    assert shown(tmp_path)["loss"] == pytest.approx(
        {1: 4.0, 2: 2.0, 3: 4 / 3, 4: 1.0, 5: 9.0, 6: 8.0}
    )


def test_boards_that_follow_each_other_at_once_keep_all(tmp_path: Path) -> None:
    """A rollback opens one within the second in which the last was opened."""
    for step in range(12):
        write(tmp_path, step, line(step + 1))
    assert shown(tmp_path)["grad_norm"] == {step: step / 8 for step in range(1, 13)}


def test_a_run_without_a_step_is_no_error(tmp_path: Path) -> None:
    write(tmp_path, 0)
    assert shown(tmp_path) == {}


def test_a_writer_that_a_full_disk_ended_is_an_error_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tensorboardX's thread ends without a word, and whoever writes on waits for it for ever."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # what the thread dies of
    events = tensorboardX.event_file_writer.EventsWriter
    told = pytest.raises(OSError, match="TensorBoard's writer")
    with Board(tmp_path, 0) as board, told as caught:
        monkeypatch.setattr(events, "write_event", full)
        for step in range(1, 1000):
            board.write(line(step))
            time.sleep(0.01)
    assert str(tmp_path) in str(caught.value)
