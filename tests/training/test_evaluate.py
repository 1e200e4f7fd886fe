import json
import math
from pathlib import Path

import msgspec
import pytest
import torch

from training import checkpoint, loop, tokens
from training.config import BadInput, ModelConfig, TrainingConfig
from training.engine import PlainEngine, own_weights
from training.evaluate import evaluate, perplexity
from training.model import build


@pytest.fixture
def run_folder(config: TrainingConfig, tokens_folder: Path, tmp_path: Path) -> Path:
    engine = PlainEngine(config, build(config.sizes(), config.seed), torch.device("cpu"))
    train, validation = (tokens.open_split(tokens_folder, s) for s in ("train", "validation"))
    loop.train(loop.Run(config, engine, train, validation, tmp_path / "run"), None)
    return tmp_path / "run"


def test_the_loss_is_the_mean_over_all_whole_windows(
    config: TrainingConfig, tokens_folder: Path, run_folder: Path
) -> None:
    found = evaluate(str(run_folder), str(tokens_folder), config)
    model = build(config.sizes(), 1)
    weights = torch.load(run_folder / "step-000020" / checkpoint.WEIGHTS, weights_only=True)
    model.load_state_dict(weights | {"lm_head.weight": weights["wte.weight"]})
    split = tokens.open_split(tokens_folder, "validation")
    losses: list[float] = []
    for number in range(split.windows(16)):
        ids = torch.from_numpy(split.window(number, 16).astype("int64"))[None]
        with torch.no_grad():
            losses.append(float(model(ids[:, :-1], ids[:, 1:])))
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
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
    unfinished = checkpoint.begin(tmp_path / "run", 1)
    torch.save(own_weights(model), unfinished / checkpoint.WEIGHTS)
    checkpoint.seal(unfinished, step=1, world=1, tokens="", settings=config)
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
    assert late < early["loss"] < math.log(61)


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
