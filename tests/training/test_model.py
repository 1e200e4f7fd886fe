import math

import numpy as np
import pytest
import torch

from training.config import PRESETS, ModelConfig, Preset
from training.model import GPT2, Cache, build

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
    with torch.device("meta"):
        model = GPT2(PRESETS[name])
    assert sum(weight.numel() for weight in model.parameters()) == count


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
    assert float(loss) == pytest.approx(math.log(31), abs=0.05)


@pytest.mark.parametrize("first_weights", [False, True])
def test_logits_are_those_of_the_formulas_written_out(first_weights: bool) -> None:
    model = build(SIZES, 1)
    for weight in [] if first_weights else model.parameters():  # biases and norms do something
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(7))
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
    return norm(x, "ln_f") @ w["wte.weight"].T


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
