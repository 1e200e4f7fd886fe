"""The data half of the program runs where torch is not installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIGHT = (
    "batches", "checkpoint", "config", "files", "guard", "leave", "metrics", "provenance",
    "refusal", "schedule", "schema", "staging", "status", "tokenizer", "tokens", "watchdog",
)  # fmt: skip
DEEPSPEED = ("rank", "zero")
TORCH = (
    "board", "course", "cross_entropy", "engine", "evaluate", "fit", "flops", "generate",
    "huggingface", "loader", "loop", "model", "parts", "run", "saver", "spikes",
)  # fmt: skip


def said(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imports(names: tuple[str, ...]) -> str:
    return "import sys, " + ", ".join(f"training.{name}" for name in names)


def test_every_file_is_in_one_of_the_lists() -> None:
    """A new file: in LIGHT, if it can be."""
    found = sorted(path.stem for path in (ROOT / "training").glob("*.py"))
    assert found == sorted([*LIGHT, *TORCH, *DEEPSPEED, "__init__"])


def test_the_light_files_import_neither_torch_nor_deepspeed_nor_ray() -> None:
    heavy = "{'torch', 'deepspeed', 'ray', 'tensorboardX', 'safetensors'}"
    assert said(f"{imports(LIGHT)}; print({heavy} & sys.modules.keys())") == "set()"


def test_the_light_files_work_where_there_is_no_torch(tmp_path: Path) -> None:
    """Not even a function of theirs wants it later."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "deepspeed", "ray", "tensorboardX", "safetensors")))
{imports(LIGHT)}
from pathlib import Path
from training import batches, checkpoint, guard, metrics, schedule
from training.config import TrainingConfig
config, folder = TrainingConfig(), Path({str(tmp_path)!r})
batches.step_windows(config.seed, 3, config.batch_windows(), 1000)
schedule.learning_rate(1000, config)
checkpoint.begin(checkpoint.run_folder(folder, config, "tokens"), 1)
line = {{"step": 1, "loss": 1.0, "grad_norm": 1.0}}
with metrics.Writer(folder, 0) as lines:
    lines.write(line)
print(guard.Spikes(config.guard, metrics.read(folder)).look(line), checkpoint.resume(folder))
"""
    assert said(code) == "{} None"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="training is an extra, not installed here")
def test_only_zero_imports_deepspeed_and_nothing_ray() -> None:
    code = f"{imports(TORCH)}; print({{'deepspeed', 'ray'}} & sys.modules.keys())"
    assert said(code) == "set()"
