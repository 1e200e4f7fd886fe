"""Tokens a second of the training, beside the loops that others write.

Usage: python benchmarks/train.py [--rounds N] [--tell]. Where there is no GPU: one thread, CPU
seconds, a small model; in turn, step by step: a plain PyTorch loop, the DeepSpeed engine at stage 0
on the same model, transformers' GPT2LMHeadModel of the same size as its users train it; and our
whole loop with its duties (data, metrics, guard, a last checkpoint). Exits with 1 where a goal is
missed, unless it is to `--tell` alone.

Where there is one (`--dry`: the same on a CPU, tiny): GPT-2 in four sizes by our loop, by
transformers' model under the same DeepSpeed settings, and by nanoGPT's way; within nine minutes
[--seconds S], which need not suffice for all, so [--only WHO] measures one of them. [--stage N]
sets ZeRO's stage, [--json FILE] keeps all numbers.
[--minutes M --tokens FOLDER [--steps N]] trains 124 M parameters so long by ours and by nanoGPT's
way, and tells the validation losses; random tokens without the folder.

On a machine that has torch alone: `--pack FOLDER [--python 3.12]` gathers the wheels of all else
here, `--wheels FOLDER` uses them there.
"""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import train_wheels  # noqa: E402


def main(given: argparse.Namespace) -> int:
    if given.pack:
        train_wheels.pack(given.pack, ROOT / "constraints.txt", given.python)
        return 0
    if given.wheels:
        with tempfile.TemporaryDirectory() as folder:
            train_wheels.unpack(given.wheels, Path(folder))
            os.environ["PYTHONPATH"] = folder  # of the processes that this one starts
            sys.path.insert(1, folder)
            return measure(given)
    return measure(given)


def measure(given: argparse.Namespace) -> int:
    """On the GPU, or else on the CPU."""
    import torch

    if given.dry or torch.cuda.is_available():
        import train_gpu

        if given.one:
            train_gpu.one(given.one, BEGAN, given.dry)
            return 0
        return train_gpu.main(given)
    if given.on_cpu:
        import train_cpu

        return train_cpu.main(given.rounds)
    from training.config import CPU_RANK_ENVIRONMENT

    # A process of its own, as glibc reads its part of it only when it starts.
    command = [sys.executable, __file__, "--on-cpu", "--rounds", str(given.rounds)]
    environment = os.environ | CPU_RANK_ENVIRONMENT
    missed = subprocess.run(command, env=environment, check=False).returncode
    return 0 if given.tell and missed == 1 else missed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tell", action="store_true", help="0 though a goal be missed")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--only", metavar="WHO")
    parser.add_argument("--seconds", type=float, default=530.0)
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--pack", type=Path)
    own = ".".join(platform.python_version_tuple()[:2])
    parser.add_argument("--python", default=own, help=f"whose wheels (this one's, {own})")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--on-cpu", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_arguments()))
