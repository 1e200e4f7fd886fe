import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training import cross_entropy
from training.config import PRESETS, ModelConfig, Preset
from training.cross_entropy import IGNORED
from training.model import GPT2, Cache, build, empty, load_weights, own_weights

SIZES = ModelConfig(layers=3, heads=2, width=8, context=12, vocabulary=31)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2-small", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_the_published_sizes_have_the_published_counts(name: Preset, count: int) -> None:
    sizes = PRESETS[name]
    with torch.device("meta"):
        model = GPT2(sizes)
    assert sizes.parameters() == count
    assert sum(weight.numel() for weight in own_weights(model).values()) == count
    padding = 50304 - 50257  # to a multiple of 64
    assert sum(w.numel() for w in model.parameters()) == count + padding * sizes.width


def test_the_head_is_the_embedding() -> None:
    model = build(SIZES, 1)
    assert model.lm_head.weight is model.wte.weight
    assert "lm_head.weight" not in dict(model.named_parameters())


def test_first_weights_follow_openai() -> None:
    sizes = ModelConfig(layers=8, heads=4, width=128, context=256, vocabulary=1000)
    weights = dict(build(sizes, 1).named_parameters())
    deviations = {
        "wte.weight": 0.02,
        "wpe.weight": 0.01,
        "h.3.attn.c_attn.weight": 0.02,
        "h.3.attn.c_proj.weight": 0.02 / 4,
        "h.7.mlp.c_fc.weight": 0.02,
        "h.7.mlp.c_proj.weight": 0.02 / 4,
    }
    for name, deviation in deviations.items():
        assert float(weights[name].detach().std()) == pytest.approx(deviation, rel=0.05)
    assert all(not w.any() for name, w in weights.items() if name.endswith("bias"))
    assert all((weights[name] == 1).all() for name in ("ln_f.weight", "h.0.ln_1.weight"))


def test_the_seed_alone_gives_the_first_weights() -> None:
    torch.manual_seed(5)
    one = build(SIZES, 3).state_dict()
    torch.manual_seed(6)
    two, other = build(SIZES, 3).state_dict(), build(SIZES, 4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["wte.weight"], other["wte.weight"])


def test_the_first_loss_is_that_of_knowing_nothing() -> None:
    ids = torch.arange(24).view(2, 12) % 31
    loss = build(SIZES, 1)(ids, ids.flip(0)).detach()
    assert float(loss) / 24 == pytest.approx(math.log(31), abs=0.05)


def noisy(seed: int = 7) -> GPT2:
    """A model whose biases and norms do something, and whose padding is not zero."""
    model, random = build(SIZES, 1), torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=random)
    return model


def test_the_loss_is_the_sum_over_the_targets_that_count() -> None:
    model, ids = noisy(), torch.arange(24).view(2, 12) % 31
    targets = ids.flip(0).clone()
    targets[1, 3:] = IGNORED
    with torch.no_grad():
        loss, logits = model(ids, targets), model.logits(ids)
    assert logits.shape == (2, 12, 31)
    counted = logits.double().flatten(0, 1)[:15], targets.flatten()[:15]
    assert float(loss) == pytest.approx(float(F.cross_entropy(*counted, reduction="sum")))


def test_padding_is_zero_and_has_no_gradient() -> None:
    model, ids = build(SIZES, 1), torch.arange(24).view(2, 12) % 31
    assert len(model.wte.weight) == 64 and not model.wte.weight[31:].any()
    model(ids, ids.flip(0)).backward()
    gradient = model.wte.weight.grad
    assert gradient is not None
    assert not gradient[31:].any() and gradient[:31].any(1).all()


@pytest.mark.parametrize("first_weights", [False, True])
def test_logits_are_those_of_the_formulas_written_out(first_weights: bool) -> None:
    model = build(SIZES, 1) if first_weights else noisy()
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    with torch.no_grad():
        found = model.logits(torch.tensor([ids]))[0].double().numpy()
    assert found == pytest.approx(written_out(model, ids), abs=2e-5, rel=1e-4)


def written_out(model: GPT2, ids: list[int]) -> np.ndarray:
    w = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attend(x: np.ndarray, name: str) -> np.ndarray:
        q, k, v = np.split(linear(x, f"{name}.c_attn"), 3, axis=-1)
        size = SIZES.width // SIZES.heads
        heads = []
        for here in (slice(h * size, (h + 1) * size) for h in range(SIZES.heads)):
            scores = q[:, here] @ k[:, here].T / math.sqrt(size)
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, here])
        return linear(np.concatenate(heads, -1), f"{name}.c_proj")

    def mlp(x: np.ndarray, name: str) -> np.ndarray:
        y = linear(x, f"{name}.c_fc")
        y = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return linear(y, f"{name}.c_proj")

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for block in range(SIZES.layers):
        x = x + attend(norm(x, f"h.{block}.ln_1"), f"h.{block}.attn")
        x = x + mlp(norm(x, f"h.{block}.ln_2"), f"h.{block}.mlp")
    return norm(x, "ln_f") @ w["wte.weight"][: SIZES.vocabulary].T


def test_no_token_sees_those_after_it() -> None:
    model = build(SIZES, 1)
    one, two = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 9]])
    with torch.no_grad():
        a, b = model.logits(one)[0], model.logits(two)[0]
    assert torch.equal(a[:2], b[:2]) and not torch.allclose(a[2:], b[2:])


def test_a_cache_changes_nothing() -> None:
    model, ids = build(SIZES, 1), torch.arange(12).view(1, 12)
    cache = Cache()
    with torch.no_grad():
        whole = model.logits(ids)
        parts = [model.logits(ids[:, :5], cache)]
        parts += [model.logits(ids[:, t : t + 1], cache) for t in range(5, 12)]
    assert len(cache) == 12
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)


def learnt(model: GPT2) -> dict[str, torch.Tensor]:
    """The loss of a batch and its gradients, by the weights' names."""
    ids = torch.arange(24).view(2, 12) % 31
    model.zero_grad()
    loss = model(ids, ids.flip(0))
    loss.backward()
    return {"loss": loss.detach()} | {
        name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None
    }


def test_recomputing_changes_neither_loss_nor_gradients() -> None:
    model, passes = noisy(), []
    for block in model.h:
        block.ln_1.register_forward_hook(lambda *_: passes.append(1))
    kept = learnt(model)
    assert len(passes) == 3
    model.recompute = True
    again = learnt(model)
    assert len(passes) == 3 + 6  # each block once more in the backward pass
    assert again.keys() == kept.keys() == {"loss"} | dict(model.named_parameters()).keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    with torch.no_grad():
        model.logits(torch.tensor([[1, 2]]))
    assert len(passes) == 3 + 6 + 3


def test_a_cache_is_filled_where_blocks_are_recomputed() -> None:
    model, cache = build(SIZES, 1), Cache()
    model.recompute = True
    model.logits(torch.tensor([[1, 2, 3]]), cache)
    assert len(cache) == 3


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_fused_it_computes_the_same_under_the_same_names(recompute: bool) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    cross_entropy._compiled_softmax.cache_clear()
    model, ids = noisy(), torch.tensor([[3, 1, 4, 1, 5]])
    model.recompute = recompute
    plain, logits = learnt(model), model.logits(ids).detach()
    model.fuse()
    fused, fused_logits = learnt(model), model.logits(ids).detach()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1
    assert cross_entropy._compiled_softmax.cache_info().currsize == 1
    assert fused.keys() == plain.keys()
    for name in plain:
        assert torch.allclose(fused[name], plain[name], rtol=1e-4, atol=1e-4), name
    assert torch.allclose(fused_logits, logits, rtol=0, atol=1e-5)


def test_weights_go_from_one_model_to_another() -> None:
    one, two = noisy(), empty(SIZES)
    assert two.lm_head.weight is two.wte.weight
    weights = own_weights(one)
    assert weights["wte.weight"].shape == (31, 8)
    assert weights.keys() == dict(one.named_parameters()).keys() and len(weights) == 4 + 3 * 12
    load_weights(two, {name: weight.half().double() for name, weight in weights.items()})
    found = own_weights(two)
    assert all(torch.equal(found[name], weights[name].half().float()) for name in weights)
    assert two.lm_head.weight is two.wte.weight and not two.wte.weight[31:].any()
    found["h.0.ln_1.bias"][3] = 9
    assert two.h[0].ln_1.bias[3] == 9  # views of the model's own memory


def test_weights_of_another_model_are_refused() -> None:
    model = build(SIZES, 1)
    weights = own_weights(build(SIZES, 2))
    missing = {name: weight for name, weight in weights.items() if name != "h.1.ln_2.bias"}
    with pytest.raises(ValueError, match=r"h\.1\.ln_2\.bias: is not in both of model and weights"):
        load_weights(model, missing)
    with pytest.raises(ValueError, match=r"lm_head\.weight: is not in both of model and weights"):
        load_weights(model, weights | {"lm_head.weight": weights["wte.weight"]})
    padded = {"wte.weight": torch.zeros(64, 8)}
    with pytest.raises(ValueError, match=r"has shape \(64, 8\), the model's is \(31, 8\)"):
        load_weights(model, weights | padded)
    flat = {"wpe.weight": torch.zeros(1, 8)}  # would be spread over all rows
    with pytest.raises(ValueError, match=r"wpe\.weight: has shape \(1, 8\)"):
        load_weights(model, weights | flat)
