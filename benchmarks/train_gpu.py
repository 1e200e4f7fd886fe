"""What `train.py` does where there is a GPU: loops by models, a process each, and a table.

`--dry` does all of it with a tiny model on a CPU: its figures mean nothing, and a row that fails is
a failure.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from training.config import CPU_RANK_ENVIRONMENT, PRESETS, ModelConfig, TrainingConfig

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("train.py")
PLAN = (
    ("webtext", "gpt2-small"),
    ("webtext", "gpt2-xl"),
    ("nanoGPT's way", "gpt2-small"),
    ("transformers", "gpt2-small"),
    ("webtext", "gpt2-medium"),
    ("webtext", "gpt2-large"),
    ("transformers", "gpt2-xl"),
    ("nanoGPT's way", "gpt2-xl"),
    ("transformers, compiled", "gpt2-small"),
    ("nanoGPT's way", "gpt2-medium"),
    ("transformers", "gpt2-medium"),
    ("nanoGPT's way", "gpt2-large"),
    ("transformers", "gpt2-large"),
)
"""In the order of importance: the time may not suffice for the last."""
GOALS = {"gpt2-small": 520_000, "gpt2-xl": 48_000}
"""Tokens a second on one H200."""
BATCHES = {"gpt2-small": 512, "gpt2-medium": 256, "gpt2-large": 128, "gpt2-xl": 128}
"""Windows of a measured step: fewer for the larger, so that a step takes about a second or two."""
MICRO = {"gpt2-small": 64, "gpt2-medium": 64, "gpt2-large": 32, "gpt2-xl": 32}
"""Windows of the first pass that is tried; halved until it fits."""
TINY = ModelConfig(layers=2, heads=2, width=32, context=64, vocabulary=512)
ROW_S, LEAST_S = 100.0, 35.0
"""Seconds of a row, where there is no time over for more; and below which none is begun."""
COUNTED = 10
"""Steps whose median counts."""
WARM_UP = 3
"""Steps before them, which compile and find their memory."""
LOOK_S = 150.0
"""For a validation loss after the training: what it needs is compiled first."""


@dataclass
class Task:
    """What one process measures; `measured` carries it there."""

    who: str
    model: str
    micro: int
    config: dict[str, Any]
    tokens: str
    folder: str
    ends_s: float
    """From the start of the process."""
    most: int
    """Steps."""
    look: bool
    """Whether the validation loss is measured too."""


def main(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = given.tokens or synthetic(folder / "tokens", TINY if given.dry else None)
        found = {"about": about(given), "rows": [], "equal time": []}
        print("\n".join(f"{key}: {value}" for key, value in found["about"].items()), flush=True)
        if given.minutes:
            found["equal time"] = equal_time(given, folder, place)
        else:
            found["rows"] = rows(given, folder, place)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.dry:
        return int(any("failed" in row for row in [*found["rows"], *found["equal time"]]))
    return int(not all(row.get("reached", True) for row in found["rows"]))


def rows(given: argparse.Namespace, folder: Path, place: Path) -> list[dict[str, Any]]:
    """Measure and print one row after the other, while there is time."""
    ends = time.perf_counter() + given.seconds
    plan = PLAN[:4] if given.dry else PLAN
    plan = tuple(row for row in plan if given.only in (None, row[0]))
    found = []
    print(
        "\n| who | model | tokens/s | MFU, published peak | MFU, measured peak | peak memory, GiB "
        "| micro-batch | step, s | start, s | goal |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|"
    )
    for number, (who, model) in enumerate(plan):
        left = ends - time.perf_counter()
        share = max(ROW_S, left / (len(plan) - number))
        row = {"who": who, "model": model}
        if left < LEAST_S:
            row["failed"] = "skipped: the time is over"
        else:
            row |= fitted(given, task(given, who, model, folder, place), min(left, share))
        found.append(row)
        print(shown(row), flush=True)
    return found


def task(given: argparse.Namespace, who: str, model: str, folder: Path, place: Path) -> Task:
    """A row's measurement."""
    windows = 4 if given.dry else BATCHES[model]
    sizes = TINY if given.dry else PRESETS[model]
    config = TrainingConfig(
        model=sizes,
        zero_stage=given.stage,
        batch_tokens=windows * sizes.context,
        steps=100_000,
        checkpoint_every=1_000_000,
        evaluate_every=0,
        precision="fp32" if given.dry else "bf16",
        compile=not given.dry,
    )
    return Task(
        who, model, 2 if given.dry else MICRO[model], msgspec.to_builtins(config), str(place),
        str(folder), 0.0, 2 + WARM_UP if given.dry else COUNTED + WARM_UP, look=given.dry,
    )  # fmt: skip


def fitted(given: argparse.Namespace, what: Task, left_s: float) -> dict[str, Any]:
    """Measure with the largest micro-batch that fits, within the time. What one attempt has
    compiled is there for the next, and for no other row."""
    began = time.perf_counter()
    caches = tempfile.mkdtemp(dir=what.folder)
    while True:
        what.ends_s = left_s - (time.perf_counter() - began) - 5
        if what.ends_s < 5:
            return {"failed": "skipped: the time is over"}
        found = measured(given, what, caches)
        if not found.get("full"):
            return with_rates(what, found)
        if what.micro == 1:
            return {"failed": "does not fit"}
        what.micro //= 2


def measured(given: argparse.Namespace, what: Task, caches: str) -> dict[str, Any]:
    """What a process of its own says. One that fails or hangs costs its own row alone."""
    with tempfile.TemporaryDirectory(dir=what.folder) as name:
        what = Task(**{**vars(what), "folder": name})
        place, answer = Path(name) / "task.json", Path(name) / "answer.json"
        place.write_text(json.dumps(vars(what)))
        command = [sys.executable, str(SCRIPT), "--one", str(place), *(["--dry"] * given.dry)]
        environment = {
            "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
            "TRITON_CACHE_DIR": f"{caches}/triton",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        }
        try:
            done = subprocess.run(
                command,
                env=os.environ | environment | (CPU_RANK_ENVIRONMENT if given.dry else {}),
                capture_output=True,
                text=True,
                check=False,
                timeout=what.ends_s + (LOOK_S if what.look else 20),
            )
        except subprocess.TimeoutExpired:
            return {"failed": "no step was finished in time"}
        if done.returncode or not answer.exists():
            print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
            return {"failed": f"status {done.returncode}"}
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def one(path: Path, began: float, dry: bool) -> None:
    """In that process: measure, and write the answer beside the task."""
    import train_loops

    what = Task(**json.loads(path.read_text()))
    config = msgspec.convert(what.config, TrainingConfig)
    setting = train_loops.Setting(
        config=config,
        tokens=Path(what.tokens),
        folder=Path(what.folder) / "run",
        device=torch.device("cpu") if dry else torch.device("cuda", 0),
        micro=what.micro,
    )
    found = train_loops.measure(what.who, setting, began, began + what.ends_s, what.most, what.look)
    path.with_name("answer.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def with_rates(what: Task, found: dict[str, Any]) -> dict[str, Any]:
    """With tokens a second and what follows from them."""
    if "failed" in found:
        return found
    counted = found["seconds"][WARM_UP:]
    if not counted:
        return found | {"failed": f"only {found['steps']} steps in the time"}
    seconds = statistics.median(counted)
    rate = what.config["batch_tokens"] / seconds
    goal = GOALS.get(what.model) if what.who == "webtext" else None
    work = rate * found["flops_a_token"]
    return found | {
        "step_s": seconds,
        "tokens_per_s": rate,
        "mfu_measured": work / found["peak"],
        "mfu_published": work / found["published_peak"] if found["published_peak"] else None,
        **({"goal": goal, "reached": rate >= goal} if goal else {}),
    }


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""
    name = f"| {row['who']} | {row['model']} |"
    if "failed" in row:
        return f"{name} {row['failed']} | | | | | | | |"
    published, memory = row["mfu_published"], row["memory_bytes"]
    goal = f"{row['goal']:,} {'reached' if row['reached'] else 'missed'}" if "goal" in row else ""
    return (
        f"{name} {row['tokens_per_s']:,.0f} | {f'{published:.1%}' if published else ''} "
        f"| {row['mfu_measured']:.1%} | {f'{memory / 2**30:.1f}' if memory else ''} "
        f"| {row['micro']} | {row['step_s']:.3f} | {row['until_first_step_s']:.0f} | {goal} |"
    )


def equal_time(given: argparse.Namespace, folder: Path, place: Path) -> list[dict[str, Any]]:
    """The losses of two loops on 124 M after as many minutes each, compilation included.

    The learning rate falls to its end just when the time does: how many steps that are is found by
    a short measurement before, unless it is given.
    """
    found = []
    print("\n| who | minutes | steps | tokens | validation loss |\n|---|--:|--:|--:|--:|")
    for who in ("webtext", "nanoGPT's way"):
        if given.only and given.only != who:
            continue
        what = task(given, who, "gpt2-small", folder, place)
        row = {"who": who, "model": what.model}
        before = {} if given.steps else fitted(given, what, ROW_S)
        if "failed" in before:
            row |= before
        else:
            steps = given.steps or steps_within(given.minutes, before)
            what.config |= {"steps": steps, "warmup_steps": steps // 10}
            what.most, what.look, what.ends_s = steps, True, given.minutes * 60
            row |= measured(given, what, tempfile.mkdtemp(dir=folder))
            row |= {"failed": "does not fit"} if row.get("full") else {}
        found.append(row)
        print(ended(row, what, given.minutes), flush=True)
    return found


def steps_within(minutes: float, before: dict[str, Any]) -> int:
    """How many steps a loop makes in the time."""
    left = minutes * 60 - before["until_first_step_s"]
    return max(1, int(left / before["step_s"]))


def ended(row: dict[str, Any], what: Task, minutes: float) -> str:
    """A line of the second table."""
    if "failed" in row:
        return f"| {row['who']} | {row['failed']} | | | |"
    tokens = row["steps"] * what.config["batch_tokens"]
    return f"| {row['who']} | {minutes:g} | {row['steps']} | {tokens:,} | " + (
        f"{row['validation_loss']:.4f} |"
    )


def synthetic(folder: Path, sizes: ModelConfig | None) -> Path:
    """Token shards of random ids: for the speed it is all the same what they say."""
    folder.mkdir()
    random = np.random.default_rng(1)
    vocabulary = sizes.vocabulary if sizes else 50257
    for split, count in (("train", 20_000 if sizes else 50_000_000), ("validation", 100_000)):
        ids = random.integers(0, vocabulary, count, dtype=np.uint16)
        ids.astype("<u2").tofile(folder / f"00000.{split}.bin")
    return folder


def about(given: argparse.Namespace) -> dict[str, str]:
    """What the figures are of."""
    from importlib.metadata import version

    names = ("torch", "deepspeed", "transformers", "triton")
    there = {name: _version(version, name) for name in names}
    if given.dry:
        device = "a CPU: a dry run, whose figures mean nothing"
    else:
        device = torch.cuda.get_device_name()
    return {
        "device": device,
        "driver": _driver(),
        "versions": ", ".join(f"{name} {found}" for name, found in there.items())
        + f", CUDA {torch.version.cuda}, Python {platform.python_version()}",
        "precision": "bf16 products, fp32 weights; TF32 off in webtext and transformers, on in "
        "nanoGPT's way, where no product is fp32",
        "zero_stage": str(given.stage),
        "command": shlex.join(["python", *sys.argv]),
    }


def _version(version: Any, name: str) -> str:
    try:
        return str(version(name))
    except ImportError:
        return "absent"


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
