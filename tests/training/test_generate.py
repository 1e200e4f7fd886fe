from collections import Counter
from pathlib import Path

import msgspec
import pytest
import torch

from training import checkpoint, tokenizer
from training.config import BadInput, ModelConfig, SampleConfig, TrainingConfig
from training.engine import own_weights
from training.evaluate import open_model
from training.generate import continuation, draw, generate
from training.model import build

SIZES = ModelConfig(layers=2, heads=2, width=8, context=8)
CONFIG = TrainingConfig(model=SIZES, sample=SampleConfig(max_new_tokens=6))


def run_folder(folder: Path, config: TrainingConfig) -> str:
    unfinished = checkpoint.begin(folder, 1)
    torch.save(own_weights(build(config.sizes(), 5)), unfinished / checkpoint.WEIGHTS)
    checkpoint.seal(unfinished, step=1, world=1, tokens="", settings=config)
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
