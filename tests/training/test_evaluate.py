import json
import math
from pathlib import Path

import msgspec
import pytest
import torch

from training import checkpoint, loop, metrics, parts, tokens
from training.checkpoint import Marker, Probe
from training.config import BadInput, ModelConfig, TrainingConfig
from training.engine import PlainEngine
from training.evaluate import evaluate, open_model, perplexity
from training.model import GPT2, build, own_weights
from training.run import Run


@pytest.fixture
def run_folder(config: TrainingConfig, tokens_folder: Path, tmp_path: Path) -> Path:
    """A run of twenty steps that has looked at all of the validation split."""
    config = msgspec.structs.replace(config, evaluate_windows=1000)
    train, validation = (tokens.open_split(tokens_folder, s) for s in ("train", "validation"))
    engine = PlainEngine(config, build(config.sizes(), config.seed), torch.device("cpu"))
    run = Run(
        config=config, engine=engine, train=train, validation=validation,
        tokens_folder=tokens_folder, folder=tmp_path / "run", micro=2,
    )  # fmt: skip
    loop.train(run)
    return tmp_path / "run"


def sealed(folder: Path, config: TrainingConfig, model: GPT2) -> None:
    """A checkpoint of this model's weights."""
    unfinished = checkpoint.begin(folder, 1)
    place = parts.path(unfinished, 0)
    weights = {f"weights/{name}": weight for name, weight in own_weights(model).items()}
    marker = Marker(
        step=1, applied=1, samples=8, skipped=[], world=1, zero_stage=1, tokens="", manifest="",
        settings={"of_next_year": 1}, trained={}, sizes=config.sizes(), device="cpu",
        probe=Probe(ids=[], loss=0.0),
        files={place.name: parts.write(place, weights)},
    )  # fmt: skip
    checkpoint.seal(unfinished, marker)


def test_a_checkpoint_that_its_training_deletes_meanwhile_gives_way_to_a_newer_one(
    config: TrainingConfig, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, read = checkpoint.newest(run_folder), parts.weights
    assert newest is not None

    def deleted(folder: Path) -> dict[str, torch.Tensor]:
        if folder.exists() and folder == newest.folder:
            folder.rename(run_folder / "step-000030")
        return read(folder)

    monkeypatch.setattr(parts, "weights", deleted)
    open_model(str(run_folder), config)
    assert not newest.folder.exists()


def test_a_checkpoint_without_a_part_is_not_looked_for_again(
    config: TrainingConfig, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = checkpoint.newest(run_folder)
    assert newest is not None
    monkeypatch.setattr(checkpoint, "newest", lambda _: newest)
    parts.path(newest.folder, 0).unlink()
    with pytest.raises(FileNotFoundError, match="no part of a checkpoint"):
        open_model(str(run_folder), config)


@pytest.mark.parametrize("step", [20, 10])
def test_the_loss_is_the_one_that_the_run_saw_itself(
    config: TrainingConfig, tokens_folder: Path, run_folder: Path, step: int
) -> None:
    seen = {line["step"]: line.get("validation_loss") for line in metrics.read(run_folder)}
    for path in run_folder.glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            (path / "COMPLETE").unlink()
    found = evaluate(str(run_folder), str(tokens_folder), config)
    assert found["step"] == step
    assert found["loss"] == pytest.approx(seen[step], rel=1e-6)
    assert len({seen[5], seen[10], seen[15], seen[20]}) == 4


def test_the_loss_is_the_mean_over_all_whole_windows(
    config: TrainingConfig, tokens_folder: Path, run_folder: Path
) -> None:
    """By logits alone, window by window."""
    found = evaluate(str(run_folder), str(tokens_folder), config)
    model, _ = open_model(str(run_folder), config)
    split = tokens.open_split(tokens_folder, "validation")
    losses: list[float] = []
    for number in range(split.windows(16)):
        ids = torch.from_numpy(split.window(number, 16).astype("int64"))
        with torch.no_grad():
            logits = model.logits(ids[None, :-1])[0]
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[1:])))
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found["loss"] is not None
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert (found["tokens"], found["step"]) == (16 * len(losses), 20)


def test_the_loss_does_not_depend_on_how_much_is_read_at_once(
    config: TrainingConfig,
    tokens_folder: Path,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = evaluate(str(run_folder), str(tokens_folder), config)
    monkeypatch.setattr("training.evaluate._TOKENS_AT_ONCE", 3 * 16)
    parts = evaluate(str(run_folder), str(tokens_folder), config)
    assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert parts["tokens"] == whole["tokens"]


def test_a_perplexity_that_no_float_holds_is_none() -> None:
    assert perplexity(709.0) == pytest.approx(math.exp(709.0))
    assert perplexity(710.0) is None


def test_the_worst_model_is_told_in_json(
    config: TrainingConfig, tokens_folder: Path, tmp_path: Path
) -> None:
    model = build(config.sizes(), 1)
    with torch.no_grad():
        model.ln_f.weight.fill_(1e6)
    sealed(tmp_path / "run", config, model)
    found = evaluate(str(tmp_path / "run"), str(tokens_folder), config)
    assert found["loss"] is not None and found["loss"] > 710
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["perplexity"] is None


def test_it_is_better_than_knowing_nothing_and_reads_the_newest(
    config: TrainingConfig, tokens_folder: Path, run_folder: Path
) -> None:
    late = evaluate(str(run_folder), str(tokens_folder), config)["loss"]
    (run_folder / "step-000020" / "COMPLETE").unlink()
    early = evaluate(str(run_folder), str(tokens_folder), config)
    assert early["step"] == 10
    assert late is not None and early["loss"] is not None
    assert late < early["loss"] < math.log(61)


def test_the_model_that_is_opened_is_the_one_that_was_saved(
    config: TrainingConfig, tmp_path: Path
) -> None:
    model = build(config.sizes(), 7)
    sealed(tmp_path / "run", config, model)
    found, step = open_model(str(tmp_path / "run"), config)
    assert step == 1 and not found.training
    for (name, weight), (other_name, other) in zip(
        model.named_parameters(), found.named_parameters(), strict=True
    ):
        assert name == other_name and torch.equal(weight, other)
    assert found.lm_head.weight is found.wte.weight


def test_what_is_missing_is_said_in_one_line(
    config: TrainingConfig, tokens_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="nowhere: no whole checkpoint"):
        evaluate(str(tmp_path / "nowhere"), str(tokens_folder), config)
    other = msgspec.structs.replace(
        config, model=ModelConfig(layers=1, heads=1, width=8, context=16)
    )
    with pytest.raises(BadInput, match=r"training\.model"):
        evaluate(str(run_folder), str(tokens_folder), other)
    for path in tokens_folder.glob("*.validation.bin"):
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="validation tokens: 0 tokens are fewer"):
        evaluate(str(run_folder), str(tokens_folder), config)
