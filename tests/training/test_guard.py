"""What counts as a spike, against numpy over the same steps."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import metrics
from training.config import GuardConfig
from training.guard import Spikes, counts

NAMES = ("loss", "grad_norm")
Line = dict[str, Any]


def line(loss: float, grad_norm: float | None = 1.0, *, applied: bool = True) -> Line:
    return {"loss": loss, "grad_norm": grad_norm, "applied": applied}


def wavy(count: int) -> list[Line]:
    """Steps whose loss has mean 4 and deviation 1."""
    return [line(4.0 + (-1) ** step, 2.0 + (-1) ** step / 2) for step in range(count)]


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    """Some forty steps, some with an outlier, some without a finite gradient."""
    number = st.floats(0.5, 4.0) | st.sampled_from([1.0, 50.0, 1e6])
    found: list[Line] = []
    for _ in range(draw(st.integers(0, 40))):
        applied = draw(st.integers(0, 7)) > 0
        norm = draw(number) if applied else None
        found.append({"step": len(found) + 1} | line(draw(number), norm, applied=applied))
    return found


def walked(config: GuardConfig, run: list[Line]) -> list[dict[str, float]]:
    """The z-scores, each from all lines before it."""
    found: list[dict[str, float]] = []
    for place, here in enumerate(run):
        past = [each for each in run[:place] if each["applied"]][-config.window :]
        z: dict[str, float] = {}
        for name in NAMES:
            values = np.array([each[name] for each in past])
            if here["applied"] and len(values) == config.window and values.std():
                z[name] = (here[name] - values.mean()) / values.std()
        found.append({name: score for name, score in z.items() if score > config.z_score})
    return found


@given(lines(), st.integers(8, 12), st.sampled_from([0.5, 2.0, 6.0]))
def test_spikes_are_those_that_numpy_finds(run: list[Line], window: int, z_score: float) -> None:
    config = GuardConfig(window=window, z_score=z_score)
    guard = Spikes(config, [])
    for here, wanted in zip(run, walked(config, run), strict=True):
        assert guard.look(here) == pytest.approx(wanted, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(lines(), st.data())
def test_a_resumed_run_finds_what_an_undisturbed_one_does(
    tmp_path_factory: pytest.TempPathFactory, run: list[Line], data: st.DataObject
) -> None:
    """Stopped anywhere, as often as you like: what came before is read from metrics.jsonl."""
    config = GuardConfig(window=8, z_score=2.0)
    undisturbed = Spikes(config, [])
    wanted = [undisturbed.look(here) for here in run]
    folder = tmp_path_factory.mktemp("run")
    found: list[dict[str, float]] = []
    while len(found) < len(run):
        guard = Spikes(config, metrics.tail(folder, config.window, len(found), counts))
        stop = data.draw(st.integers(len(found) + 1, len(run)))
        with metrics.Writer(folder, len(found)) as writer:
            for here in run[len(found) : stop]:
                found.append(guard.look(here))
                writer.write(here)
    assert found == wanted


def test_a_z_score_is_in_deviations_above_the_mean() -> None:
    guard = Spikes(GuardConfig(window=8), wavy(8))
    assert guard.look(line(4.0 + 10.0, 2.0 + 4.0)) == pytest.approx({"loss": 10, "grad_norm": 8})


def test_only_what_is_beyond_the_limit_is_a_spike() -> None:
    config = GuardConfig(window=8, z_score=6.0)
    assert Spikes(config, wavy(8)).look(line(4.0 + 6.0)) == {}
    assert Spikes(config, wavy(8)).look(line(4.0 + 6.1)).keys() == {"loss"}
    assert Spikes(config, wavy(8)).look(line(4.0, 2.0 + 3.1)).keys() == {"grad_norm"}


def test_there_is_no_spike_before_the_window_is_full() -> None:
    for before in range(8):
        assert Spikes(GuardConfig(window=8), wavy(before)).look(line(1e9, 1e9)) == {}
    assert Spikes(GuardConfig(window=8), wavy(8)).look(line(1e9, 1e9)).keys() == {*NAMES}


def test_falling_is_no_spike() -> None:
    assert Spikes(GuardConfig(window=8), wavy(8)).look(line(-1e9, 0.0)) == {}


def test_a_level_run_has_no_measure_of_a_spike() -> None:
    assert Spikes(GuardConfig(window=8), [line(4.0)] * 8).look(line(5.0)) == {}


def test_zero_never_looks() -> None:
    assert Spikes(GuardConfig(window=8, z_score=0.0), wavy(8)).look(line(1e9, 1e9)) == {}


@pytest.mark.parametrize("norm", [None, math.inf, math.nan])
def test_a_step_that_was_not_applied_does_not_count(norm: float | None) -> None:
    """Neither as a spike, as it moved nothing, nor as a measure of later ones."""
    config = GuardConfig(window=8)
    disturbed, plain = Spikes(config, wavy(8)), Spikes(config, wavy(8))
    assert disturbed.look(line(1e9, norm, applied=False)) == {}
    assert disturbed.look(line(14.0, 6.0)) == plain.look(line(14.0, 6.0)) != {}
    before = [*wavy(4), line(1e9, None, applied=False), *wavy(4)]
    assert Spikes(config, before).look(line(14.0, 6.0)) == pytest.approx(
        {"loss": 10, "grad_norm": 8}
    )


def test_a_spike_becomes_part_of_the_measure() -> None:
    """Else a run that has moved on to a higher level would be one long spike."""
    guard = Spikes(GuardConfig(window=8), wavy(8))
    found = [guard.look(line(14.0 + (-1) ** step)) for step in range(8)]
    assert found[0] and not any(found[1:])


def test_lines_as_json_has_them_are_taken() -> None:
    before = msgspec.json.decode(msgspec.json.encode(wavy(8)), type=list[dict[str, Any]])
    assert Spikes(GuardConfig(window=8), before).look(line(14.0)) == pytest.approx({"loss": 10})
