"""The data half of the program runs where torch is not installed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

LIGHT = ("config", "schema", "tokenizer", "tokens", "batches", "schedule", "checkpoint", "metrics")


def test_the_light_files_import_neither_torch_nor_deepspeed_nor_ray() -> None:
    names = ", ".join(f"training.{name}" for name in LIGHT)
    code = f"import sys, {names}; print({{'torch', 'deepspeed', 'ray'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(find_spec("torch") is None, reason="training is an extra, not installed here")
@pytest.mark.parametrize("name", ["loop", "evaluate", "generate"])
def test_only_zero_imports_deepspeed(name: str) -> None:
    code = f"import sys, training.{name}; print('deepspeed' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
