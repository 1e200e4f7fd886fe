"""A small training on real books by `webtext train`, and the same by a plain PyTorch loop: their
curves coincide.

Usage: python benchmarks/curve.py [--steps N] [--books FILE] [--draw]. GPT-2 of 9.9 M parameters,
one thread each. Ours is the real command with DeepSpeed's ZeRO stage 1; the other is a loop over
transformers' model, written out here, with the same first weights, windows and learning rates.
Writes docs/loss.json and docs/loss.svg (`--draw`: only the picture, from the numbers that are
there), prints the greatest difference of the two, and exits with 1 where that is above 1e-3 nats.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # where `training` is the package, not the script here

from training.config import CPU_RANK_ENVIRONMENT, ModelConfig, TrainingConfig  # noqa: E402

os.environ |= CPU_RANK_ENVIRONMENT  # before torch is imported

import msgspec  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
import zstandard  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402
from transformers import __version__ as transformers_version  # noqa: E402

from training import batches, tokens  # noqa: E402
from training.model import build, own_weights  # noqa: E402

BOOKS = ROOT.parent / "shared/data/text/books.jsonl.zst"
NUMBERS, PICTURE = ROOT / "docs/loss.json", ROOT / "docs/loss.svg"
GOAL = 1e-3
HELD_OUT = 50
"""Every so many-th book is validation."""
WINDOWS_AT_ONCE = 4
"""Of the plain loop: as many as are fastest in a CPU's caches."""
TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""What transformers keeps as inputs x outputs."""


def settings(steps: int) -> TrainingConfig:
    """The training of both."""
    return TrainingConfig(
        model=ModelConfig(layers=6, heads=5, width=160, context=256),
        batch_tokens=4096,
        steps=steps,
        warmup_steps=min(20, steps),
        learning_rate=1e-3,
        precision="fp32",
        evaluate_every=20,
        checkpoint_every=steps,
        ranks=1,
        device="cpu",
    )


def main(steps: int, books: Path) -> int:
    torch.set_num_threads(1)
    config = settings(steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokens(books, folder / "tokens")
        print(f"{config.sizes().parameters():,} parameters, {config.steps} steps", flush=True)
        with webtext(config, folder) as process:  # the two at once, a core each
            loop = plain(config, folder / "tokens")
        if process.returncode:
            return 1  # it has said why
        found = {"webtext": lines_of(folder), "plain PyTorch": loop}
    NUMBERS.write_text(json.dumps(report(config, found), indent=1) + "\n")
    draw(json.loads(NUMBERS.read_text()))
    return tell(found)


def write_tokens(books: Path, folder: Path) -> None:
    """The books as token shards, with an index, as the program itself makes them."""
    rows = [json.loads(line) for line in zstandard.open(books, "rt", encoding="utf-8")]
    ids = [blake2b(row["title"].encode(), digest_size=16).digest() for row in rows]
    documents = pa.record_batch({"document_id": ids, "text": [row["text"] for row in rows]})
    corpus = pa.record_batch(
        {
            "document_id": ids,
            "url": [f"https://books.test/{each.hex()}" for each in ids],
            "verdict": ["kept"] * len(ids),
            "split": ["train" if n % HELD_OUT else "validation" for n in range(len(ids))],
        }
    )
    index = tokens.write(tokens.encode([documents], [corpus]), folder, "00000")
    pq.write_table(index, folder / "00000.parquet")


def webtext(config: TrainingConfig, folder: Path) -> subprocess.Popen[bytes]:
    """Our command, started."""
    recipe = folder / "recipe.toml"
    recipe.write_text(f'root = "{folder}/run"\n[training]\n{told(config, folder)}')
    command = [sys.executable, "-m", "pipeline", "train", str(recipe), "--local"]
    return subprocess.Popen(command, cwd=ROOT)


def lines_of(folder: Path) -> list[dict[str, float]]:
    """What our command has written of each step."""
    (lines,) = folder.glob("run/training/*/metrics.jsonl")
    kept = ("step", "loss", "grad_norm", "validation_loss")
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    return [{name: line[name] for name in kept if name in line} for line in found]


def told(config: TrainingConfig, folder: Path) -> str:
    """What a recipe says of it: what differs from the defaults, in TOML."""
    given: dict[str, Any] = msgspec.to_builtins(config)
    sizes, defaults = given.pop("model"), msgspec.to_builtins(TrainingConfig())
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    changed |= {"tokens": str(folder / "tokens")}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in changed.items()]
    table = ", ".join(f"{name} = {value}" for name, value in sizes.items())
    return "".join([*lines, f"model = {{{table}}}\n"])


def plain(config: TrainingConfig, folder: Path) -> list[dict[str, float]]:
    """The losses of a loop that knows nothing of our trainer but its windows and first weights."""
    train, held_out = (tokens.open_split(folder, split) for split in ("train", "validation"))
    model = theirs(config)
    decayed = [weight for weight in model.parameters() if weight.dim() >= 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.95),
    )
    windows, context = config.batch_windows(), config.sizes().context
    looked_at = range(min(config.evaluate_windows, held_out.windows(context)))
    lines = []
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, config.steps, config.warmup_steps)
        numbers = batches.step_windows(config.seed, step, windows, train.windows(context))
        loss = 0.0
        for part in losses(model, train, numbers.tolist(), context):
            (part / windows).backward()
            loss += part.item() / windows
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        line = {"step": step + 1, "loss": loss, "grad_norm": float(norm)}
        if (step + 1) % config.evaluate_every == 0:
            with torch.no_grad():
                held = sum(part.item() for part in losses(model, held_out, looked_at, context))
            line["validation_loss"] = held / len(looked_at)
            print(f"plain PyTorch: step {step + 1}, loss {loss:.4f}", flush=True)
        lines.append(line)
    return lines


def losses(
    model: GPT2LMHeadModel, split: tokens.Tokens, numbers: Any, context: int
) -> Iterator[torch.Tensor]:
    """The losses of windows, a few at a time: the mean over a window's tokens, summed over them."""
    for begin in range(0, len(numbers), WINDOWS_AT_ONCE):
        part = numbers[begin : begin + WINDOWS_AT_ONCE]
        ids = torch.from_numpy(batches.read(split, part, context))
        logits = model(ids[:, :-1], use_cache=False).logits
        yield F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) * len(part)


def rate(step: int, steps: int, warmup: int) -> float:
    """A straight rise to 1e-3, then half a cosine down to a tenth of it."""
    if step < warmup:
        return 1e-3 * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return 1e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def theirs(config: TrainingConfig) -> GPT2LMHeadModel:
    """transformers' model with the first weights of ours."""
    sizes = config.sizes()
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=sizes.vocabulary,
            n_positions=sizes.context,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    own = own_weights(build(sizes, config.seed))
    turned = {name: w.T if name.endswith(TURNED) else w for name, w in own.items()}
    model.transformer.load_state_dict(turned)
    return model


def report(config: TrainingConfig, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What docs/loss.json holds."""
    return {
        "made by": "python benchmarks/curve.py",
        "versions": {"torch": torch.__version__, "transformers": transformers_version},
        "parameters": config.sizes().parameters(),
        "training": config.trained(),
        "greatest difference, nats a token": differences(found),
        "curves": {
            who: {
                "loss": [round(line["loss"], 6) for line in lines],
                "validation": [
                    [line["step"], round(line["validation_loss"], 6)]
                    for line in lines
                    if "validation_loss" in line
                ],
            }
            for who, lines in found.items()
        },
    }


def differences(found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """The most that the two are apart at any step, by what is compared."""
    return {
        name: max(
            abs(one[name] - other[name])
            for one, other in zip(*found.values(), strict=True)
            if name in one
        )
        for name in ("loss", "validation_loss")
    }


def tell(found: dict[str, list[dict[str, float]]]) -> int:
    """The summary; the exit status."""
    for who, lines in found.items():
        first, last = lines[0], lines[-1]
        print(f"{who:16}loss {first['loss']:.6f} -> {last['loss']:.6f}", end="")
        print(f", validation {last['validation_loss']:.6f}")
    apart = differences(found)
    for name, value in apart.items():
        print(f"greatest difference of {name}: {value:.1e} (goal: at most {GOAL:.0e})")
    return int(not max(apart.values()) <= GOAL)  # what is not a number is no small difference


def draw(numbers: dict[str, Any]) -> None:
    """docs/loss.svg."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "webtext", "font.size": 11}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    looks = {"webtext": ("#1f77b4", "-", 3.2), "plain PyTorch": ("#111111", "--", 1.1)}
    for who, curve in numbers["curves"].items():
        colour, dashes, width = looks[who]
        steps = range(1, len(curve["loss"]) + 1)
        axes.plot(steps, curve["loss"], dashes, color=colour, linewidth=width, label=who)
    marks = {"webtext": ("o", 8), "plain PyTorch": ("x", 5)}
    for who, curve in numbers["curves"].items():
        mark, size = marks[who]
        axes.plot(
            *zip(*curve["validation"], strict=True), mark, color="#d62728", markersize=size,
            markerfacecolor="none", label=f"{who}, validation",
        )  # fmt: skip
    axes.set(
        xlabel="optimizer steps (of 4,096 tokens)",
        ylabel="loss (nats a token)",
        title=f"GPT-2 of {numbers['parameters'] / 1e6:.1f} M parameters on 84 books",
    )
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--books", type=Path, default=BOOKS)
    parser.add_argument("--draw", action="store_true", help="only the picture, from the numbers")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    if given.draw:
        draw(json.loads(NUMBERS.read_text()))
    elif not given.books.exists():
        print(f"{given.books} is not here: name such a file of books with --books", file=sys.stderr)
        sys.exit(2)
    else:
        sys.exit(main(given.steps, given.books))
