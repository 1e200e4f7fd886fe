"""DeepSpeed runs in children: it keeps its groups for as long as a process lives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from training import checkpoint, loop, metrics, tokens
from training.config import TrainingConfig
from training.engine import PlainEngine
from training.model import build

ROOT = Path(__file__).parents[2]

EVERY_STAGE = """
import sys, msgspec
from training import zero
job = msgspec.json.decode(sys.argv[1], type=zero.Job)
for stage in range(4):
    config = msgspec.structs.replace(job.training, zero_stage=stage)
    zero.train(config, job.tokens, f"{job.folder}-{stage}")
"""


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # No compiler can be found: nothing may be built at start-up.
    environment["PATH"] = "/nonexistent"
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300
    )


def job(config: TrainingConfig, tokens_folder: Path, folder: Path) -> str:
    settings = msgspec.to_builtins(config)
    return json.dumps({"training": settings, "tokens": str(tokens_folder), "folder": str(folder)})


def two_ranks(config: TrainingConfig, tokens_folder: Path, folder: Path) -> list[dict[str, Any]]:
    path = tokens_folder / "settings.json"
    path.write_text(job(config, tokens_folder, folder))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = child(*launcher, "-m", "training.zero", str(path))
    assert done.returncode == 0, done.stderr
    return metrics.read(folder)


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


def test_every_stage_trains_as_plain_torch_does(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    few = msgspec.structs.replace(config, stop_after=6, clip=0.5)
    expected = plain(few, tokens_folder, tmp_path / "plain")
    assert max(line["grad_norm"] for line in expected) > 0.5  # else clipping is not tried
    done = child("-c", EVERY_STAGE, job(few, tokens_folder, tmp_path / "zero"))
    assert done.returncode == 0, done.stderr
    wanted = torch.load(tmp_path / "plain" / "step-000006" / checkpoint.WEIGHTS)
    for stage in range(4):
        folder = tmp_path / f"zero-{stage}"
        assert values(metrics.read(folder)) == pytest.approx(values(expected), abs=1e-4)
        weights = torch.load(folder / "step-000006" / checkpoint.WEIGHTS, weights_only=True)
        assert weights.keys() == wanted.keys()
        for name, weight in weights.items():
            assert torch.allclose(weight, wanted[name], atol=1e-3), (stage, name)


def test_twenty_steps_on_two_ranks_are_ten_and_ten_and_those_of_one(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    whole = two_ranks(config, tokens_folder, tmp_path / "whole")
    halted = msgspec.structs.replace(config, stop_after=10)
    two_ranks(halted, tokens_folder, tmp_path / "cut")
    resumed = two_ranks(config, tokens_folder, tmp_path / "cut")
    assert len(whole) == 20
    assert course(resumed) == course(whole)
    alone = plain(config, tokens_folder, tmp_path / "plain")
    assert values(whole) == pytest.approx(values(alone), abs=1e-4)
    recorded = json.loads((tmp_path / "whole" / "deepspeed.json").read_text())
    assert recorded["zero_optimization"]["stage"] == 1
    assert recorded["gradient_accumulation_steps"] == 2
    found = checkpoint.newest(tmp_path / "cut")
    assert found is not None and (found.marker.step, found.marker.world) == (20, 2)


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
