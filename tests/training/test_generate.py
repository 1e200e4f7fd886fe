import math
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training import checkpoint, parts, tokenizer
from training.checkpoint import Marker, Probe
from training.config import BadInput, ModelConfig, SampleConfig, TrainingConfig
from training.evaluate import open_model
from training.generate import continuation, draw, generate
from training.model import GPT2, build, own_weights

SIZES = ModelConfig(layers=2, heads=2, width=8, context=8)
CONFIG = TrainingConfig(model=SIZES, sample=SampleConfig(max_new_tokens=6))


def run_folder(folder: Path, config: TrainingConfig, model: GPT2 | None = None) -> str:
    """A run whose checkpoint has this model's weights, or first ones."""
    unfinished = checkpoint.begin(folder, 1)
    place = parts.path(unfinished, 0)
    found = own_weights(model or build(config.sizes(), 5))
    digest = parts.write(place, {f"weights/{name}": weight for name, weight in found.items()})
    marker = Marker(
        step=1, applied=1, samples=8, skipped=[], world=1, zero_stage=1, tokens="", manifest="",
        settings={}, trained={}, sizes=config.sizes(), device="cpu",
        probe=Probe(ids=[], loss=0.0), files={place.name: digest},
    )  # fmt: skip
    checkpoint.seal(unfinished, marker)
    return str(folder)


def test_the_prompt_and_the_seed_give_the_text(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, CONFIG)
    text = generate(folder, "The module", CONFIG, seed=1)
    assert text.startswith("The module") and len(text) > len("The module")
    assert generate(folder, "The module", CONFIG, seed=1) == text
    assert generate(folder, "The module", CONFIG, seed=2) != text


def test_an_empty_prompt_is_the_begin_of_a_document(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, CONFIG)
    model, _ = open_model(folder, CONFIG)
    ids = continuation(model, [tokenizer.END_OF_TEXT], CONFIG.sample, seed=1)
    assert generate(folder, "", CONFIG, seed=1) == tokenizer.decode(ids)


def test_a_prompt_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    small = msgspec.structs.replace(CONFIG, model=msgspec.structs.replace(SIZES, vocabulary=300))
    folder = run_folder(tmp_path, small)
    with pytest.raises(BadInput, match=r"training\.model\.vocabulary: is 300"):
        generate(folder, "The module", small, seed=1)
    first_outside = tokenizer.decode([300])
    with pytest.raises(BadInput, match=r"training\.model\.vocabulary: is 300.* id 300"):
        generate(folder, first_outside, small, seed=1)


def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the prompt is not UTF-8 at character 2"):
        generate(run_folder(tmp_path, CONFIG), "ab\udcff", CONFIG, seed=1)


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no whole checkpoint"):
        generate(str(tmp_path), "The module", CONFIG, seed=1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_nothing_even_past_the_context(temperature: float) -> None:
    model = build(SIZES, 5)
    for weight in model.parameters():  # far from the first weights, where all is alike
        torch.nn.init.normal_(weight, std=0.4, generator=torch.Generator().manual_seed(2))
    sample = SampleConfig(temperature=temperature, max_new_tokens=20)
    for prompt in ([1, 2, 3], list(range(12))):
        cached = continuation(model, prompt, sample, seed=3)
        assert cached == continuation(model, prompt, sample, seed=3, cached=False)
        assert temperature == 0.0 or len(set(cached)) > 10


def drawn(sample: SampleConfig, logits: list[float]) -> Counter[int]:
    random = torch.Generator().manual_seed(1)
    return Counter(draw(torch.tensor(logits), sample, random) for _ in range(3000))


LOGITS = [1.0, 3.0, 2.0, 0.0]  # shares .087 .644 .237 .032


def test_draws_follow_the_shares() -> None:
    found = drawn(SampleConfig(temperature=1.0, top_k=0), LOGITS)
    shares = torch.softmax(torch.tensor(LOGITS), 0).tolist()
    assert [found[i] / 3000 for i in range(4)] == pytest.approx(shares, abs=0.03)


def test_zero_temperature_takes_the_likeliest_and_a_low_one_nearly_always() -> None:
    assert drawn(SampleConfig(temperature=0.0), LOGITS).keys() == {1}
    assert drawn(SampleConfig(temperature=0.3, top_k=0), LOGITS)[1] > 2800


@pytest.mark.parametrize("temperature", [1e-2, 1e-30, 1e-45, 5e-324])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_temperature_near_zero_is_as_greedy_as_zero(temperature: float, sign: float) -> None:
    logits = [sign * 1e4 + each for each in LOGITS]
    assert drawn(SampleConfig(temperature=temperature), logits).keys() == {1}


def test_top_k_and_top_p_leave_the_others_out() -> None:
    plain = SampleConfig(temperature=1.0, top_k=0)
    kept = {k: drawn(msgspec.structs.replace(plain, top_k=k), LOGITS).keys() for k in (1, 2, 3, 99)}
    assert kept == {1: {1}, 2: {1, 2}, 3: {0, 1, 2}, 99: {0, 1, 2, 3}}
    for share, ids in ((0.01, {1}), (0.6, {1}), (0.7, {1, 2}), (0.9, {0, 1, 2})):
        assert drawn(msgspec.structs.replace(plain, top_p=share), LOGITS).keys() == ids
    # the share of top_p is one of what top_k leaves: of .644 and .237 the first has .73
    both = msgspec.structs.replace(plain, top_k=2, top_p=0.7)
    assert drawn(both, LOGITS).keys() == {1}


def test_an_end_of_text_ends_the_sample_and_padded_ids_never_come() -> None:
    sizes = msgspec.structs.replace(SIZES, vocabulary=50304)
    model = build(sizes, 1)
    with torch.no_grad():
        model.wte.weight.zero_()
        model.wte.weight[50256:] = 1.0  # end-of-text and padding are the likeliest by far
        model.ln_f.weight.zero_()
        model.ln_f.bias.fill_(9.0)
    greedy = SampleConfig(temperature=0.0, max_new_tokens=5)
    assert continuation(model, [1], greedy, seed=1) == []
    with torch.no_grad():
        model.wte.weight[50256] = 0.0
    assert all(id_ < tokenizer.END_OF_TEXT for id_ in continuation(model, [1], greedy, seed=1))


@pytest.mark.parametrize("vocabulary", [257, 300, 319])
@pytest.mark.parametrize("cached", [True, False])
def test_rows_of_padding_are_never_drawn_however_wild(vocabulary: int, cached: bool) -> None:
    """Not even where they would be the likeliest by far."""
    sizes = msgspec.structs.replace(SIZES, vocabulary=vocabulary)
    model = build(sizes, 1)
    with torch.no_grad():
        model.wte.weight[vocabulary:] = 50.0
        model.ln_f.bias.fill_(9.0)
    assert sizes.padded_vocabulary() == 320
    wild = SampleConfig(temperature=100.0, top_k=0, max_new_tokens=200)
    found = continuation(model, [1], wild, seed=1, cached=cached)
    assert len(found) == 200 and len(set(found)) > 50 and max(found) < vocabulary


def test_text_of_a_small_vocabulary_is_made_of_its_ids(tmp_path: Path) -> None:
    wild = SampleConfig(temperature=100.0, top_k=0, max_new_tokens=60)
    sizes = msgspec.structs.replace(SIZES, vocabulary=257)
    config = msgspec.structs.replace(CONFIG, model=sizes, sample=wild)
    folder = run_folder(tmp_path, config)
    model, _ = open_model(folder, config)
    ids = continuation(model, tokenizer.encode("a"), wild, seed=4)
    assert max(ids) < 257
    assert generate(folder, "a", config, seed=4) == "a" + tokenizer.decode(ids)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-40, 40).map(lambda each: each / 8), min_size=1, max_size=12),
    st.integers(0, 14),
    st.floats(0.01, 1.0),
    st.sampled_from([0.05, 0.5, 1.0, 100.0]),
    st.integers(0, 2**31),
)
def test_what_is_drawn_is_among_the_likeliest_that_are_allowed(
    logits: list[float], top_k: int, top_p: float, temperature: float, seed: int
) -> None:
    """Told one by one: an id may come while those likelier have not yet reached the share."""
    sample = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    order = sorted(range(len(logits)), key=lambda id_: (-logits[id_], id_))
    order = order[: top_k or len(order)]
    weights = [math.exp((logits[id_] - max(logits)) / temperature) for id_ in order]
    allowed, reached = set(), 0.0
    for id_, weight in zip(order, weights, strict=True):
        if reached < top_p * (1 + 1e-9):
            allowed.add(id_)
        reached += weight / sum(weights)
    random = torch.Generator().manual_seed(seed)
    found = {draw(torch.tensor(logits), sample, random) for _ in range(20)}
    assert found <= allowed
    if len(allowed) == 1:
        assert found == allowed == {order[0]}
