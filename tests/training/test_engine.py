from pathlib import Path

import msgspec
import pytest
import torch

from training.config import TrainingConfig
from training.engine import Batch, PlainEngine, adamw, load_weights
from training.model import build

CPU = torch.device("cpu")


def engine(config: TrainingConfig, seed: int = 1) -> PlainEngine:
    return PlainEngine(config, build(config.sizes(), seed), CPU)


def batch(windows: int, seed: int = 1) -> Batch:
    ids = torch.randint(0, 61, (windows, 17), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def test_steps_on_one_batch_learn_it(config: TrainingConfig) -> None:
    one = engine(config)
    losses = [one.step([batch(4)], 1e-2).loss for _ in range(40)]
    assert losses[0] == pytest.approx(4.11, abs=0.1)
    assert losses[-1] < 2.0


def test_accumulation_is_one_large_batch(config: TrainingConfig) -> None:
    whole, cut = engine(config), engine(config)
    inputs, targets = batch(8)
    parts = [(inputs[i : i + 2], targets[i : i + 2]) for i in range(0, 8, 2)]
    for _ in range(4):
        one, other = whole.step([(inputs, targets)], 1e-2), cut.step(parts, 1e-2)
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, abs=1e-5)


def test_the_gradient_is_cut_but_told_whole(config: TrainingConfig) -> None:
    free = engine(msgspec.structs.replace(config, clip=0.0))
    cut = engine(msgspec.structs.replace(config, clip=1e-3))
    assert cut.step([batch(4)], 0.0).grad_norm == free.step([batch(4)], 0.0).grad_norm > 1e-2
    assert gradient_norm(cut) == pytest.approx(1e-3, rel=1e-3)
    assert gradient_norm(free) > 1e-2


def gradient_norm(one: PlainEngine) -> float:
    grads = [weight.grad for weight in one._model.parameters() if weight.grad is not None]
    return float(torch.nn.utils.get_total_norm(grads))


def test_evaluating_does_not_learn(config: TrainingConfig) -> None:
    one = engine(config)
    before = one.weights()
    loss = one.evaluate([batch(2), batch(2, seed=2)])
    assert loss == pytest.approx(one.evaluate([batch(2, seed=2), batch(2)]))
    assert all(torch.equal(before[name], weight) for name, weight in one.weights().items())


def test_a_loaded_engine_goes_on_bit_for_bit(config: TrainingConfig, tmp_path: Path) -> None:
    one = engine(config)
    for seed in range(3):
        one.step([batch(2, seed)], 1e-2)
    one.save(tmp_path)
    other = engine(config, seed=99)
    other.load(tmp_path)
    for seed in range(3, 6):
        assert other.step([batch(2, seed)], 1e-2) == one.step([batch(2, seed)], 1e-2)


def test_biases_and_norms_do_not_decay(config: TrainingConfig) -> None:
    model = build(config.sizes(), 1)
    decayed, free = adamw(config, model).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {weight.dim() for weight in decayed["params"]} == {2}
    assert {weight.dim() for weight in free["params"]} == {1}
    total = sum(len(group["params"]) for group in (decayed, free))
    assert total == len(list(model.parameters()))


def test_the_optimizer_follows_the_settings(config: TrainingConfig) -> None:
    other = msgspec.structs.replace(config, beta1=0.8, beta2=0.7, weight_decay=0.3)
    decayed, free = adamw(other, build(config.sizes(), 1)).param_groups
    assert decayed["betas"] == free["betas"] == (0.8, 0.7)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


def test_a_step_is_as_long_as_its_rate(config: TrainingConfig) -> None:
    one = engine(config)
    before = one.weights()
    one.step([batch(4)], 0.0)
    assert all(torch.equal(before[name], weight) for name, weight in one.weights().items())
    one.step([batch(4)], 1e-3)
    moved = (one.weights()["ln_f.bias"] - before["ln_f.bias"]).abs()
    assert float(moved.max()) < 2e-3


def test_bf16_is_close_and_keeps_fp32_weights(config: TrainingConfig) -> None:
    one, half = engine(config), engine(msgspec.structs.replace(config, precision="bf16"))
    a, b = one.step([batch(4)], 1e-2).loss, half.step([batch(4)], 1e-2).loss
    assert a != b and a == pytest.approx(b, abs=1e-2)
    assert {weight.dtype for weight in half.weights().values()} == {torch.float32}


def test_weights_of_another_shape_are_refused(config: TrainingConfig) -> None:
    weights = engine(config).weights()
    model = build(config.sizes(), 2)
    load_weights(model, weights)
    assert torch.equal(model.lm_head.weight, weights["wte.weight"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(model, weights | {"wpe.weight": torch.zeros(2, 2)})
    del weights["ln_f.bias"]
    with pytest.raises(RuntimeError, match=r"ln_f\.bias"):
        load_weights(model, weights)
