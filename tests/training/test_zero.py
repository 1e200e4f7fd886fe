"""DeepSpeed runs in children: it keeps its groups for as long as a process lives."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from training import checkpoint, loop, metrics, refusal, tokens
from training.config import TrainingConfig
from training.engine import PlainEngine
from training.model import build

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

EVERY_STAGE = """
import sys, msgspec
from pathlib import Path
from training import zero
job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=zero.Job)
for stage in range(4):
    config = msgspec.structs.replace(job.training, zero_stage=stage)
    zero.train(config, job.tokens, f"{job.folder}-{stage}")
"""


HURRIED = """
import sys
from functools import partial
from training import checkpoint, zero
checkpoint.hold = partial(checkpoint.hold, wait_s=0)
sys.exit(zero.main(sys.argv[1:]))
"""

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def environment() -> dict[str, str]:
    # No compiler can be found: nothing may be built at start-up.
    changes = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": "/nonexistent"}
    return os.environ | changes


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=300
    )


def job(config: TrainingConfig, tokens_folder: Path, folder: Path) -> str:
    settings = msgspec.to_builtins(config)
    return json.dumps({"training": settings, "tokens": str(tokens_folder), "folder": str(folder)})


def two_ranks(config: TrainingConfig, tokens_folder: Path, folder: Path) -> list[dict[str, Any]]:
    path = tokens_folder / "settings.json"
    path.write_text(job(config, tokens_folder, folder))
    done = child(*LAUNCHER, "-m", "training.zero", str(path))
    assert done.returncode == 0, done.stderr
    return metrics.read(folder)


def kill_launcher(path: Path, step: int, how: signal.Signals) -> str:
    """Start two ranks, end their launcher once they tell of `step`; what was said."""
    command = [sys.executable, *LAUNCHER, "-m", "training.zero", str(path)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    ) as launcher:
        assert launcher.stderr is not None
        said = []
        for line in launcher.stderr:
            said.append(line)
            if line.startswith(f"step {step}:"):
                launcher.send_signal(how)
                break
        # The pipe ends when the last rank has: one that lives on would go on to the last step.
        said += launcher.stderr.readlines()
    assert any(line.startswith(f"step {step}:") for line in said), "".join(said)
    return "".join(said)


def plain(config: TrainingConfig, tokens_folder: Path, folder: Path) -> list[dict[str, Any]]:
    engine = PlainEngine(config, build(config.sizes(), config.seed), torch.device("cpu"))
    train, validation = (tokens.open_split(tokens_folder, s) for s in ("train", "validation"))
    loop.train(loop.Run(config, engine, train, validation, folder), None)
    return metrics.read(folder)


def course(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("step", "loss", "lr", "grad_norm", "tokens", "validation_loss")
    return [tuple(line.get(name) for name in names) for line in lines]


def values(lines: list[dict[str, Any]]) -> list[float]:
    return [value for line in course(lines) for value in line if value is not None]


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_stage_trains_as_plain_torch_does(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path, ranks: int
) -> None:
    # ZeRO 3 leaves weights below 100,000 numbers whole: this table it does divide.
    table = msgspec.structs.replace(config.sizes(), vocabulary=8000)
    few = msgspec.structs.replace(config, model=table, stop_after=6, clip=0.5)
    expected = plain(few, tokens_folder, tmp_path / "plain")
    assert max(line["grad_norm"] for line in expected) > 0.5  # else clipping is not tried
    script, settings = tmp_path / "every_stage.py", tmp_path / "settings.json"
    script.write_text(EVERY_STAGE)
    settings.write_text(job(few, tokens_folder, tmp_path / "zero"))
    done = child(*(LAUNCHER if ranks == 2 else ()), str(script), str(settings))
    assert done.returncode == 0, done.stderr
    wanted = torch.load(tmp_path / "plain" / "step-000006" / checkpoint.WEIGHTS)
    for stage in range(4):
        folder = tmp_path / f"zero-{stage}"
        found = checkpoint.newest(folder)
        assert found is not None and found.marker.world == ranks
        assert values(metrics.read(folder)) == pytest.approx(values(expected), abs=1e-4)
        weights = torch.load(folder / "step-000006" / checkpoint.WEIGHTS, weights_only=True)
        assert weights.keys() == wanted.keys()
        for name, weight in weights.items():
            assert torch.allclose(weight, wanted[name], atol=1e-3), (stage, name)


def test_twenty_steps_on_two_ranks_are_those_of_one(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    whole = two_ranks(config, tokens_folder, tmp_path / "whole")
    assert len(whole) == 20
    alone = plain(config, tokens_folder, tmp_path / "plain")
    assert values(whole) == pytest.approx(values(alone), abs=1e-4)
    recorded = json.loads((tmp_path / "whole" / "deepspeed.json").read_text())
    assert recorded["zero_optimization"]["stage"] == 1
    assert recorded["gradient_accumulation_steps"] == 2
    found = checkpoint.newest(tmp_path / "whole")
    assert found is not None and (found.marker.step, found.marker.world) == (20, 2)


def test_ranks_end_with_their_launcher_and_a_new_gang_goes_on_as_if_never_ended(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    endless = msgspec.structs.replace(config, steps=4000, zero_stage=2)
    path, folder = tmp_path / "settings.json", tmp_path / "run"
    path.write_text(job(endless, tokens_folder, folder))
    kill_launcher(path, 12, signal.SIGKILL)
    killed, saved = metrics.read(folder), checkpoint.newest(folder)
    assert saved is not None and saved.marker.step >= 10
    said = kill_launcher(path, killed[-1]["step"] + 12, signal.SIGTERM)
    assert f"going on after step {saved.marker.step} of 4000" in said
    terminated = metrics.read(folder)
    last = terminated[-1]["step"] + 3
    assert last < 4000
    halted = msgspec.structs.replace(endless, stop_after=last)
    resumed = two_ranks(halted, tokens_folder, folder)
    assert [line["step"] for line in resumed] == list(range(1, last + 1))
    # What was done before and is done again after the checkpoint is the same, to the last bit.
    assert course(resumed[: len(killed)]) == course(killed)
    assert course(resumed[: len(terminated)]) == course(terminated)
    expected = plain(halted, tokens_folder, tmp_path / "plain")
    assert values(resumed) == pytest.approx(values(expected), abs=1e-4)


def test_a_held_folder_is_refused_in_one_line(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "settings.json"
    path.write_text(job(config, tokens_folder, tmp_path / "run"))
    with checkpoint.hold(tmp_path / "run"):
        done = child("-c", HURRIED, str(path))
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith(f"{tmp_path / 'run'}: another training has been writing there")
    told = refusal.read(tmp_path / "run")  # for whoever started the ranks
    assert told is not None and told.says == said and told.input
    assert "Traceback" not in done.stderr
    assert metrics.read(tmp_path / "run") == []


def test_another_world_is_refused_in_one_line(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    unfinished = checkpoint.begin(tmp_path / "run", 10)
    identity = tokens.open_split(tokens_folder, "train").identity
    checkpoint.seal(unfinished, step=10, world=2, tokens=identity, settings=config)
    path = tmp_path / "settings.json"
    path.write_text(job(config, tokens_folder, tmp_path / "run"))
    done = child("-m", "training.zero", str(path))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("training.ranks: is 1, but")
    assert "Traceback" not in done.stderr


def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"training": {"steps": "many"}, "tokens": "", "folder": ""}')
    done = child("-m", "training.zero", str(path))
    assert done.returncode == 2
    assert done.stderr.strip() == "Expected `int`, got `str` - at `$.training.steps`"
