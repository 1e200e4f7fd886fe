"""transformers is the judge: what it computes from a folder, we compute, and it from ours."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training import huggingface, tokenizer
from training.config import PRESETS, BadInput, ModelConfig, Preset
from training.model import GPT2, build, own_weights

SIZES = ModelConfig(layers=3, heads=2, width=8, context=12, vocabulary=31)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])


def randomise(model: torch.nn.Module, width: int, seed: int = 7) -> None:
    """Fill every weight from one piece of noise, since drawing 1.5 billion numbers takes long; no
    bias stays 0 and no norm 1, and the logits are as large as a trained model's."""
    noise = torch.randn(2**22 + 1_234_577, generator=torch.Generator().manual_seed(seed))
    begin = 0
    for name, weight in model.named_parameters():
        is_vector = weight.dim() == 1
        scale, mean = (0.2, float("weight" in name)) if is_vector else (1.5 / width**0.5, 0.0)
        for part in weight.detach().view(-1).split(2**22):
            begin = (begin + 1_000_003) % 1_234_577
            torch.add(mean, noise[begin : begin + len(part)], alpha=scale, out=part)


def theirs(sizes: ModelConfig, **settings: Any) -> transformers.GPT2LMHeadModel:
    """A model of transformers, without the time its first weights would take."""
    config = transformers.GPT2Config(
        n_layer=sizes.layers,
        n_head=sizes.heads,
        n_embd=sizes.width,
        n_positions=sizes.context,
        vocab_size=sizes.vocabulary,
        bos_token_id=None,
        eos_token_id=None,
        **settings,
    )
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    randomise(model, sizes.width)
    return model


def read_by_them(folder: Path) -> transformers.GPT2LMHeadModel:
    model, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model


def logits(model: GPT2 | transformers.GPT2LMHeadModel) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(IDS) if isinstance(model, GPT2) else model(IDS).logits


def check_both_ways(sizes: ModelConfig, folder: Path) -> None:
    """One model in memory at a time, one folder on the disk: the largest takes 6 GB."""
    model = theirs(sizes)
    model.save_pretrained(folder / "theirs")
    expected = logits(model)
    del model
    assert expected.std() > 1
    loaded = huggingface.load(folder / "theirs")
    shutil.rmtree(folder / "theirs")
    assert loaded.sizes == sizes
    assert torch.allclose(logits(loaded), expected, rtol=0, atol=1e-4)
    huggingface.save(loaded, folder / "ours")
    del loaded
    back = logits(read_by_them(folder / "ours"))
    shutil.rmtree(folder / "ours")
    assert torch.allclose(back, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "sizes",
    [
        SIZES,
        ModelConfig(layers=1, heads=1, width=64, context=8, vocabulary=64),
        ModelConfig(layers=2, heads=5, width=20, context=9, vocabulary=130),
    ],
)
def test_free_sizes_both_ways(sizes: ModelConfig, tmp_path: Path) -> None:
    check_both_ways(sizes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes_both_ways(name: Preset, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        check_both_ways(PRESETS[name], tmp_path)
    finally:
        torch.set_num_threads(1)
        shutil.rmtree(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What transformers writes."""
    theirs(SIZES).save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def same(one: GPT2, two: GPT2) -> bool:
    mine, its = own_weights(one), own_weights(two)
    return one.sizes == two.sizes and all(torch.equal(mine[name], its[name]) for name in mine)


def test_shards_names_without_prefix_and_old_masks_change_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = huggingface.load(folder)
    model = read_by_them(folder)

    shards = tmp_path_factory.mktemp("shards")
    model.save_pretrained(shards, max_shard_size="2KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    assert same(huggingface.load(shards), expected)

    bare = tmp_path_factory.mktemp("bare")
    model.transformer.save_pretrained(bare)
    assert "wte.weight" in load_file(bare / "model.safetensors")
    assert same(huggingface.load(str(bare)), expected)

    def age(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
        for block in range(SIZES.layers):
            mask = torch.ones(12, 12, dtype=torch.uint8).tril().view(1, 1, 12, 12)
            weights[f"transformer.h.{block}.attn.bias"] = mask
            weights[f"transformer.h.{block}.attn.masked_bias"] = torch.tensor(-1e4)

    change(folder, age)
    assert same(huggingface.load(folder), expected)


@pytest.mark.parametrize("type_", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_fp32(folder: Path, type_: torch.dtype) -> None:
    model = read_by_them(folder).to(type_)
    model.save_pretrained(folder)
    loaded = huggingface.load(folder)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.allclose(logits(loaded), logits(model.float()), rtol=0, atol=1e-4)


def test_settings_that_change_no_formula_are_accepted(folder: Path) -> None:
    expected = huggingface.load(folder)
    configure(folder, n_inner=32, reorder_and_upcast_attn=True, attn_pdrop=0.3, new_key=[1])
    assert same(huggingface.load(folder), expected)
    path = folder / "config.json"
    sizes = ("model_type", "n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in sizes}))
    assert same(huggingface.load(folder), expected)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "gpt_neo"}, 'model_type is "gpt_neo", in GPT-2 it is "gpt2"'),
        ({"model_type": None}, "model_type is null"),
        ({"activation_function": "gelu"}, 'activation_function is "gelu", in GPT-2 .* "gelu_new"'),
        ({"n_inner": 31}, "n_inner is 31, in GPT-2 it is 32"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, in GPT-2 it is 1e-05"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false, in GPT-2 it is true"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true"),
        ({"add_cross_attention": True}, "add_cross_attention is true, in GPT-2 it is false"),
        ({"n_head": 3}, "no sizes of a GPT-2 .heads 3 do not divide width 8"),
        ({"n_layer": 0}, '"n_layer": 0.* no sizes of a GPT-2 .Expected `int` >= 1'),
        ({"n_embd": "8"}, '"n_embd": "8".* no sizes of a GPT-2 .Expected `int`, got `str`'),
        ({"vocab_size": 70_000}, "no sizes of a GPT-2 .Expected `int` <= 65536"),
        ({"n_positions": None}, '"n_positions": null.* no sizes of a GPT-2'),
        ({"n_layer": 2}, r"h\.2\..* is no weight of a GPT-2 of 2 layers"),
        ({"n_layer": 4}, r"h\.3\.attn\.c_attn\.bias is missing among its weights"),
        ({"n_layer": 10**9}, "has no 1000000000 layers, as config.json says"),
        ({"n_embd": 16}, r"h\.0\.attn\.c_attn\.bias has shape \(24,\), by config.json it is \(48,"),
        ({"n_positions": 13}, r"wpe\.weight has shape \(12, 8\), by config.json it is \(13, 8\)"),
        ({"vocab_size": 32}, r"wte\.weight has shape \(31, 8\), by config.json it is \(32, 8\)"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing, though .* not tied"),
    ],
)
def test_settings_of_another_model_are_refused(
    folder: Path, values: dict[str, Any], says: str
) -> None:
    configure(folder, **values)
    refused(folder, says)


def refused(folder: Path, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        huggingface.load(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def _untie(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    weights["lm_head.weight"][30, 7] += 1e-3


def _lose(weights: dict[str, torch.Tensor]) -> None:
    del weights["transformer.h.1.ln_2.bias"]


def _add(weights: dict[str, torch.Tensor]) -> None:
    weights["score.weight"] = torch.ones(2, 8)


def _turn(weights: dict[str, torch.Tensor]) -> None:
    weights["transformer.h.1.mlp.c_fc.weight"] = torch.ones(32, 8)


def _deepen(weights: dict[str, torch.Tensor]) -> None:
    weights["transformer.h.1.mlp.c_fc.weight"] = torch.ones(1, 8, 32)


def _shorten_head(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = torch.ones(30, 8)


def _quantise(weights: dict[str, torch.Tensor]) -> None:
    weights["transformer.ln_f.bias"] = torch.ones(8, dtype=torch.int8)


def _double(weights: dict[str, torch.Tensor]) -> None:
    weights["ln_f.bias"] = torch.ones(8)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_untie, "lm_head.weight differs from wte.weight"),
        (_lose, r"h\.1\.ln_2\.bias is missing among its weights"),
        (_add, r"score\.weight is no weight of a GPT-2 of 3 layers"),
        (_turn, r"h\.1\.mlp\.c_fc\.weight has shape \(32, 8\), by config.json it is \(8, 32\)"),
        (_deepen, r"h\.1\.mlp\.c_fc\.weight has shape \(1, 8, 32\)"),
        (_shorten_head, r"lm_head\.weight has shape \(30, 8\), by config.json it is \(31, 8\)"),
        (_quantise, r"ln_f\.bias holds torch.int8; save the model in a float type"),
        (_double, r"ln_f\.bias is there twice"),
    ],
)
def test_weights_of_another_model_are_refused(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], None], says: str
) -> None:
    change(folder, edit)
    refused(folder, says)


def test_an_untied_head_with_the_embedding_in_it_is_accepted(folder: Path) -> None:
    expected = huggingface.load(folder)
    configure(folder, tie_word_embeddings=False)
    change(folder, lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"].clone()}))
    assert same(huggingface.load(folder), expected)


def test_missing_and_damaged_files_are_refused(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    for damaged in (weights[:-1], weights[:100], b"", weights[:8] + b"x" + weights[9:]):
        (folder / "model.safetensors").write_bytes(damaged)
        refused(folder, r"model\.safetensors: cannot be read \(.+\); fetch it again")
    (folder / "model.safetensors").unlink()
    refused(folder, r"has no model\.safetensors; take a folder of a whole model")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    refused(folder, "has only a pickle, which can run code .* save the model as safetensors")
    for damaged in (b"", b"{", b"[1]", b"\xff", b'{"a":' + b"[" * 100_000):
        (folder / "config.json").write_bytes(damaged)
        refused(folder, r"config\.json: is damaged \(.+\); fetch it again")
    (folder / "config.json").unlink()
    refused(folder, r"config\.json: cannot be read \(No such file")


def test_missing_shards_and_damaged_indexes_are_refused(folder: Path) -> None:
    model = read_by_them(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2KB")
    index = folder / "model.safetensors.index.json"
    shards = sorted(folder.glob("*.safetensors"))
    shards[0].unlink()
    refused(folder, rf"{shards[0].name}: cannot be read \(No such file")
    index.write_text('{"weight_map": {"wte.weight": "../other.safetensors"}}')
    refused(folder, r"\.\./other\.safetensors is not a file beside it")
    index.write_text('{"weight_map": 3}')
    refused(folder, r"index\.json: is damaged \(Expected `object`, got `int`")


@settings(max_examples=25)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    size=st.integers(1, 9),
    context=st.integers(1, 20),
    vocabulary=st.integers(2, 200),
    seed=st.integers(0, 99),
)
def test_what_is_saved_is_loaded_bit_for_bit(
    layers: int, heads: int, size: int, context: int, vocabulary: int, seed: int
) -> None:
    model = build(
        ModelConfig(
            layers=layers, heads=heads, width=heads * size, context=context, vocabulary=vocabulary
        ),
        1,
    )
    randomise(model, heads * size, seed)  # the rows of padding too, which are not saved
    with TemporaryDirectory() as name:
        huggingface.save(model, Path(name) / "a" / "b")
        loaded = huggingface.load(Path(name) / "a" / "b")
        with (Path(name) / "a" / "b" / "model.safetensors").open("rb") as file:
            assert int.from_bytes(file.read(8), "little") % 8 == 0  # weights lie aligned
    assert same(loaded, model)
    assert not loaded.wte.weight[vocabulary:].any()
    assert loaded.lm_head.weight is loaded.wte.weight


def test_what_is_saved_is_as_transformers_writes_it(folder: Path) -> None:
    published = load_file(folder / "model.safetensors")
    own = folder / "own"
    huggingface.save(huggingface.load(folder), own)
    saved = load_file(own / "model.safetensors")
    assert saved.keys() == published.keys()
    assert all(torch.equal(saved[name], published[name]) for name in saved)
    with safe_open(own / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # else transformers 4 refuses it
    config = transformers.AutoConfig.from_pretrained(own)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0, 0, 0)
    assert (config.bos_token_id, config.eos_token_id) == (None, None)
    assert config.architectures == ["GPT2LMHeadModel"] and config.dtype == torch.float32
    assert {path.name for path in own.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    (folder / "usual").touch()
    usual = (folder / "usual").stat().st_mode
    assert {path.stat().st_mode for path in own.iterdir()} == {usual}


def test_a_full_disk_leaves_the_older_model(tmp_path: Path) -> None:
    first, second = build(SIZES, 1), build(SIZES, 2)
    huggingface.save(first, tmp_path)
    names = sorted(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            huggingface.save(second, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == names
    assert same(huggingface.load(tmp_path), first)
    before = (tmp_path / "model.safetensors").read_bytes()
    with (tmp_path / "model.safetensors").open("rb") as reader:
        huggingface.save(second, tmp_path)
        assert reader.read() == before  # who reads the older one keeps it
    assert same(huggingface.load(tmp_path), second)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a model with GPT-2's vocabulary."""
    folder = tmp_path_factory.mktemp("speaker")
    sizes = ModelConfig(layers=1, heads=1, width=4, context=24)
    huggingface.save(build(sizes, 1), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def their_tokenizer(speaker: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(speaker)


@given(
    st.text() | st.lists(st.sampled_from(["don't", " a", "\r\n \t", "日本", "🏳️‍🌈"])).map("".join)
)
def test_their_tokenizer_gives_our_ids(their_tokenizer: Any, text: str) -> None:
    ids = their_tokenizer(text)["input_ids"]
    assert ids == tokenizer.encode(text)
    assert their_tokenizer.decode(ids) == text


def test_their_tokenizer_knows_the_end_of_text(speaker: Path, their_tokenizer: Any) -> None:
    end = "<|endoftext|>"
    assert len(their_tokenizer) == tokenizer.VOCABULARY
    assert their_tokenizer.model_max_length == 24
    about = json.loads((speaker / "tokenizer_config.json").read_text())
    assert about["clean_up_tokenization_spaces"] is False  # true unless said, before version 5
    assert their_tokenizer(f"a{end}")["input_ids"] == [*tokenizer.encode("a"), 50256]
    as_text = their_tokenizer(f"a{end}", split_special_tokens=True)["input_ids"]
    assert as_text == tokenizer.encode(f"a{end}")
    assert their_tokenizer.eos_token_id == their_tokenizer.bos_token_id == 50256


def test_they_generate_from_the_folder(speaker: Path, their_tokenizer: Any) -> None:
    model = read_by_them(speaker)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 50256
    prompt = their_tokenizer("Hello", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0].tolist()
    ours = huggingface.load(speaker)
    expected = tokenizer.encode("Hello")
    while len(expected) < len(ids):
        expected.append(int(ours.logits(torch.tensor([expected]))[0, -1].argmax()))
    assert ids == expected
