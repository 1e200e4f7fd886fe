from pathlib import Path

from training import metrics


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


def test_half_a_line_is_left_out_and_gone_after_a_resume(tmp_path: Path) -> None:
    with metrics.Writer(tmp_path, 0) as lines:
        lines.write(line(1))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert metrics.read(tmp_path) == [line(1)]
    with metrics.Writer(tmp_path, 1) as lines:
        lines.write(line(2))
    assert metrics.read(tmp_path) == [line(1), line(2)]
