import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training import runs
from tests.training.conftest import SIZES
from training.config import TrainingConfig
from training.cross_entropy import IGNORED
from training.engine import Batch, PlainEngine, Step, adamw, clipped, counted, load_weights
from training.model import GPT2, build


def engine(config: TrainingConfig, seed: int = 1, model: GPT2 | None = None) -> PlainEngine:
    return PlainEngine(config, model or build(config.sizes(), seed), runs.CPU)


def batch(windows: int, seed: int = 1) -> Batch:
    ids = torch.randint(0, 61, (windows, 17), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def step(one: PlainEngine, batches: list[Batch], rate: float = 1e-2) -> Step:
    return one.step(batches, counted(batches), rate)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_steps_on_one_batch_learn_it(config: TrainingConfig) -> None:
    one = engine(config)
    losses = [step(one, [batch(4)]).loss for _ in range(40)]
    assert losses[0] == pytest.approx(4.11, abs=0.1)
    assert losses[-1] < 2.0


def test_the_norm_is_that_of_the_mean_losss_gradient(config: TrainingConfig) -> None:
    """Beside torch's own loss over all logits, without a clip and with one."""
    inputs, targets = batch(4)
    model = build(config.sizes(), 1)
    logits = model.logits(inputs)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = torch.cat([w.grad.flatten() for w in model.parameters()]).norm()
    for clip in (0.0, 0.1):
        found = step(engine(msgspec.structs.replace(config, clip=clip)), [(inputs, targets)])
        assert found.grad_norm == pytest.approx(float(expected), rel=1e-5)


CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=8)


@settings(max_examples=25)
@given(CUTS, st.integers(0, 3), st.booleans())
def test_however_a_batch_is_cut_and_filled_up_it_is_one_step(
    cuts: list[int], filling: int, last: bool
) -> None:
    """Passes weigh as much as they have tokens; rows that only fill one up weigh nothing."""
    config = TrainingConfig(model=SIZES, batch_tokens=16, precision="fp32")
    whole, cut = engine(config), engine(config)
    inputs, targets = batch(sum(cuts))
    batches = []
    for few_inputs, few_targets in zip(inputs.split(cuts), targets.split(cuts), strict=True):
        nothing = torch.zeros((filling, 16), dtype=torch.int64)
        sides = torch.cat([few_inputs, nothing]), torch.cat([few_targets, nothing - 100])
        batches.append(sides)
    if last:
        batches.append((inputs[:2], torch.full_like(targets[:2], IGNORED)))
    assert counted(batches) == targets.numel()
    for _ in range(3):
        one, other = step(whole, [(inputs, targets)]), step(cut, batches)
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, abs=1e-5)
        assert cut.evaluate(batches) == pytest.approx(whole.evaluate([(inputs, targets)]), abs=1e-5)


def test_a_loss_is_the_mean_over_tokens_not_over_passes(config: TrainingConfig) -> None:
    one, few = engine(config), (batch(2)[0], batch(2)[1].clone())
    few[1][:, 3:] = IGNORED
    both = [batch(4, seed=2), few]
    alone = [one.evaluate([each]) for each in both]
    assert alone[0] != pytest.approx(alone[1], abs=1e-3)
    weighted = (alone[0] * 64 + alone[1] * 6) / 70
    assert one.evaluate(both) == pytest.approx(weighted, abs=1e-6)
    assert step(one, both).loss == pytest.approx(weighted, abs=1e-6)


def test_the_gradient_is_cut_but_told_whole(config: TrainingConfig) -> None:
    free = engine(msgspec.structs.replace(config, clip=0.0))
    cut = engine(msgspec.structs.replace(config, clip=1e-3))
    loose = engine(msgspec.structs.replace(config, clip=1e3))
    norms = {step(each, [batch(4)], 0.0).grad_norm for each in (free, cut, loose)}
    assert len(norms) == 1 and (whole := norms.pop()) > 1e-2
    # Adam's first moment is a tenth of what it was given.
    given = [float(total(each, "exp_avg/")) * 10 for each in (free, cut, loose)]
    assert given == pytest.approx([whole, 1e-3, whole], rel=1e-3)


def total(one: PlainEngine, begins: str) -> Tensor:
    found = [tensor for name, tensor in one.state() if name.startswith(begins)]
    return torch.nn.utils.get_total_norm(found)


def test_a_norm_is_of_all_gradients_and_none_is_needed() -> None:
    weights = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    weights[0].grad, weights[2].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(clipped(iter(weights), 2.5)) == 5.0
    assert weights[0].grad.tolist() == pytest.approx([1.5, 0.0], abs=1e-5)
    assert weights[1].grad is None


def test_evaluating_does_not_learn(config: TrainingConfig) -> None:
    one = engine(config)
    before = runs.state(one)
    loss = one.evaluate([batch(2), batch(2, seed=2)])
    assert loss == pytest.approx(one.evaluate([batch(2, seed=2), batch(2)]))
    assert same(before, runs.state(one))


def test_a_loaded_engine_goes_on_bit_for_bit(config: TrainingConfig) -> None:
    one = engine(config)
    for seed in range(3):
        step(one, [batch(2, seed)])
    other = engine(config, seed=99)
    step(other, [batch(2, 7)])
    other.load(runs.state(one).__getitem__, 3)
    assert same(runs.state(one), runs.state(other))
    for seed in range(3, 6):
        assert step(other, [batch(2, seed)]) == step(one, [batch(2, seed)])
    assert same(runs.state(one), runs.state(other))


def test_adams_count_is_what_it_is_told(config: TrainingConfig) -> None:
    """It makes up for moments that begin at zero, so another count is another step."""
    one, other = engine(config), engine(config)
    held = runs.state(one)
    one.load(held.__getitem__, 0)
    other.load(held.__getitem__, 50)
    step(one, [batch(2)])
    step(other, [batch(2)])
    assert not same(runs.state(one), runs.state(other))


def test_a_state_has_no_padding_and_every_weight_with_its_moments(config: TrainingConfig) -> None:
    one = engine(config)
    step(one, [batch(2)])
    found = runs.state(one)
    assert found["weights/wte.weight"].shape == found["exp_avg/wte.weight"].shape == (61, 16)
    kinds = {
        kind: {name.removeprefix(kind) for name in found if name.startswith(kind)}
        for kind in ("weights/", "exp_avg/", "exp_avg_sq/")
    }
    names = {name for name, _ in build(SIZES, 1).named_parameters()}
    assert list(kinds.values()) == [names] * 3
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert all(bool(tensor.any()) for tensor in found.values())


def spoil(one: PlainEngine) -> None:
    """gelu(1e20) is finite, but its slope is computed as 0 times infinity."""
    held = runs.state(one)
    held["weights/h.1.mlp.c_fc.bias"][3] = 1e20
    one.load(held.__getitem__, 2)


def test_a_step_whose_gradient_is_not_finite_changes_nothing(config: TrainingConfig) -> None:
    one = engine(config)
    spoil(one)
    before = runs.state(one)
    found = step(one, [batch(2)])
    assert not found.applied and found.loss < 100.0
    assert not torch.isfinite(torch.tensor(found.grad_norm))
    assert same(before, runs.state(one))


def test_a_lost_step_among_others_is_as_if_it_had_never_been(config: TrainingConfig) -> None:
    model = runs.unsound(config, 60)
    inputs, targets = (ids.clamp(max=59) for ids in batch(2))
    lost = inputs.clone(), targets
    lost[0][1, 3] = 60
    one, other = engine(config, model=model), engine(config)
    for _ in range(3):
        assert step(one, [(inputs, targets)]) == step(other, [(inputs, targets)])
        assert not step(one, [(inputs, targets), lost]).applied
    assert same(runs.state(one), runs.state(other))


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


def test_steps_are_those_of_adamw_as_published(config: TrainingConfig) -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in doubles, over the gradients that were taken."""
    one = engine(msgspec.structs.replace(config, clip=0.0))
    name, rate = "wpe.weight", 1e-2
    w = runs.state(one)[f"weights/{name}"].double()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 5):
        before = runs.state(one)[f"exp_avg/{name}"].double()
        step(one, [batch(4, seed=t)], rate)
        g = (runs.state(one)[f"exp_avg/{name}"].double() - 0.9 * before) / 0.1
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w = w - rate * 0.1 * w - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
    assert torch.allclose(runs.state(one)[f"weights/{name}"].double(), w, atol=1e-5)


def test_a_step_is_as_long_as_its_rate(config: TrainingConfig) -> None:
    one = engine(config)
    before = runs.state(one)
    step(one, [batch(4)], 0.0)
    after = runs.state(one)
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("weights/"))
    step(one, [batch(4)], 1e-3)
    moved = (runs.state(one)["weights/ln_f.bias"] - before["weights/ln_f.bias"]).abs()
    assert 0.0 < float(moved.max()) < 2e-3


def test_bf16_is_close_and_keeps_fp32_weights(config: TrainingConfig) -> None:
    one, half = engine(config), engine(msgspec.structs.replace(config, precision="bf16"))
    a, b = step(one, [batch(4)]).loss, step(half, [batch(4)]).loss
    assert a != b and a == pytest.approx(b, abs=1e-2)
    assert {tensor.dtype for tensor in runs.state(half).values()} == {torch.float32}


def test_recomputing_changes_nothing(config: TrainingConfig) -> None:
    one, again = engine(config), engine(msgspec.structs.replace(config, recompute=True))
    assert [step(one, [batch(4)]) for _ in range(3)] == [step(again, [batch(4)]) for _ in range(3)]


def test_weights_of_another_shape_are_refused(config: TrainingConfig) -> None:
    weights = {
        name.removeprefix("weights/"): tensor
        for name, tensor in engine(config).state()
        if name.startswith("weights/")
    }
    model = build(config.sizes(), 2)
    load_weights(model, weights)
    assert torch.equal(model.lm_head.weight[:61], weights["wte.weight"])
    assert not model.lm_head.weight[61:].any()
    with pytest.raises(ValueError, match=r"wpe\.weight: has shape \(2, 2\)"):
        load_weights(model, weights | {"wpe.weight": torch.zeros(2, 2)})
    del weights["ln_f.bias"]
    with pytest.raises(ValueError, match=r"ln_f\.bias"):
        load_weights(model, weights)
