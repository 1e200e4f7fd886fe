"""GPT-2 as Hugging Face folders hold it, both ways, without Hugging Face's library.

Their names are ours, perhaps behind `transformer.`; the matrices of the blocks lie transposed
there. Rule: what `load` gives computes what transformers computes from the same folder; a folder
whose settings, names or shapes say otherwise is refused. No pickle is ever opened.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training import files, tokenizer
from training.config import BadInput, ModelConfig
from training.model import GPT2, empty, load_weights, own_weights

_CONFIG, _WHOLE, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PREFIX, _HEAD, _EMBEDDING = "transformer.", "lm_head.weight", "wte.weight"

_TRANSPOSED = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
"""Constants that old versions saved among the weights."""

_SIZES = {
    "layers": "n_layer",
    "heads": "n_head",
    "width": "n_embd",
    "context": "n_positions",
    "vocabulary": "vocab_size",
}
_FORMULAS: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
"""Settings that have one value in GPT-2 as published, which is also what their absence means.
Dropouts are not among them, nor `reorder_and_upcast_attn`, which only rounds otherwise."""

_PRINTABLE = 188
"""Bytes that a printable Latin-1 character stands for; they have the first ids."""

_T = TypeVar("_T")


class _Index(msgspec.Struct):
    """Which file has which weight, where there are several."""

    weight_map: dict[str, str]


def load(folder: Path | str) -> GPT2:
    """The model of a folder, on the CPU in fp32. BadInput where the folder is damaged or holds
    something else than GPT-2 as published.

    The files are mapped, not read at once: only the model itself takes memory.
    """
    folder = Path(folder)
    config = _decoded(folder / _CONFIG, dict[str, Any])
    sizes = _sizes(folder / _CONFIG, config)
    weights = _weights(folder)
    _check_shapes(folder, weights, sizes)
    _check_head(folder, weights, tied=config.get("tie_word_embeddings", True))
    model = empty(sizes)
    own = {name: _turned(name, weight) for name, weight in weights.items() if name != _HEAD}
    load_weights(model, own)
    return model


def save(model: GPT2, folder: Path) -> None:
    """Write a folder that transformers' GPT2LMHeadModel and AutoTokenizer read; the tokenizer only
    where the model's vocabulary is GPT-2's. Each file is put in place whole, config.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_PREFIX + name: _turned(name, w) for name, w in own_weights(model).items()}
    _write_weights(folder / _WHOLE, weights)
    if model.sizes.vocabulary == tokenizer.VOCABULARY:
        for name, content in _tokenizer_files(model.sizes.context).items():
            files.write(folder / name, content)
    ends = _ends(model.sizes)
    files.write(folder / "generation_config.json", _encoded(ends))
    files.write(folder / _CONFIG, _encoded(_config(model.sizes) | ends))


def _sizes(path: Path, config: dict[str, Any]) -> ModelConfig:
    """The model's sizes; BadInput where it computes something else with them than ours does."""
    given = {theirs: config.get(theirs) for theirs in _SIZES.values()}
    found, wanted = _FORMULAS | config, {"model_type": "gpt2"} | _FORMULAS
    if config.get("n_inner") is not None and isinstance(given["n_embd"], int):
        wanted["n_inner"] = 4 * given["n_embd"]
    for name, value in wanted.items():
        if found.get(name) != value:
            its, gpt2 = json.dumps(found.get(name)), json.dumps(value)
            raise BadInput(
                f"{path}: {name} is {its}, in GPT-2 it is {gpt2}; only GPT-2 as published can be "
                "loaded"
            )
    try:
        own = {ours: given[theirs] for ours, theirs in _SIZES.items()}
        return msgspec.convert(own, ModelConfig)
    except msgspec.ValidationError as error:
        raise BadInput(
            f"{path}: {json.dumps(given)} are no sizes of a GPT-2 ({error}); correct them"
        ) from error


def _weights(folder: Path) -> dict[str, Tensor]:
    """All weights by our names, in the files' shapes and types, mapped."""
    weights: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        try:
            for name, weight in _tensors(path):
                if name in weights:
                    raise BadInput(f"{path}: {name} is there twice; keep one of them")
                weights[name] = weight
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{path}: cannot be read ({error}); fetch it again") from error
    return weights


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for theirs in file.keys():  # noqa: SIM118
            name = theirs.removeprefix(_PREFIX)
            if not _MASK.fullmatch(name):
                yield name, file.get_tensor(theirs)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WHOLE).exists():
        return [folder / _WHOLE]
    if (folder / _INDEX).exists():
        names = sorted(set(_decoded(folder / _INDEX, _Index).weight_map.values()))
        if outside := [name for name in names if Path(name).name != name]:
            raise BadInput(f"{folder / _INDEX}: {outside[0]} is not a file beside it")
        return [folder / name for name in names]
    if any(folder.glob("*.bin")):
        raise BadInput(
            f"{folder}: has only a pickle, which can run code and is not opened; save the model as "
            "safetensors"
        )
    raise BadInput(f"{folder}: has no {_WHOLE}; take a folder of a whole model")


def _check_shapes(folder: Path, weights: Mapping[str, Tensor], sizes: ModelConfig) -> None:
    """BadInput unless the weights are those of a model of these sizes, no more and no less."""
    if sizes.layers > len(weights):  # before so many blocks are made
        raise BadInput(f"{folder}: has no {sizes.layers} layers, as {_CONFIG} says; fetch it again")
    with torch.device("meta"):
        own = own_weights(GPT2(sizes))
    wanted = {name: tuple(_turned(name, weight).shape) for name, weight in own.items()}
    wanted |= {_HEAD: wanted[_EMBEDDING]} if _HEAD in weights else {}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise BadInput(f"{folder}: {name} is missing among its weights; fetch it again")
        if name not in wanted:
            raise BadInput(f"{folder}: {name} is no weight of a GPT-2 of {sizes.layers} layers")
        shape = tuple(weights[name].shape)
        if shape != wanted[name]:
            raise BadInput(
                f"{folder}: {name} has shape {shape}, by {_CONFIG} it is {wanted[name]}; the two "
                "are not of one model"
            )
        if not weights[name].is_floating_point():
            raise BadInput(
                f"{folder}: {name} holds {weights[name].dtype}; save the model in a float type"
            )


def _check_head(folder: Path, weights: Mapping[str, Tensor], *, tied: bool) -> None:
    """BadInput where the head has a matrix of its own."""
    head = weights.get(_HEAD)
    if head is None and not tied:
        raise BadInput(f"{folder}: {_HEAD} is missing, though {_CONFIG} says it is not tied")
    if head is not None and not torch.equal(head.float(), weights[_EMBEDDING].float()):
        raise BadInput(
            f"{folder}: {_HEAD} differs from {_EMBEDDING}; only GPT-2 as published, whose head is "
            "its embedding, can be loaded"
        )


def _turned(name: str, weight: Tensor) -> Tensor:
    """A view of a weight as it lies on the other side."""
    return weight.T if _TRANSPOSED.fullmatch(name) and weight.dim() == 2 else weight


def _write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """A safetensors file in fp32, put in place whole. The library's own writer wants all weights
    contiguous at once, a second copy of the model, and leaves a file that only its owner reads."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(_header(weights))
            for weight in weights.values():
                file.write(weight.to("cpu", torch.float32).contiguous().numpy().data)
        files.to_disk(unfinished)
        unfinished.replace(path)
        files.to_disk(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _header(weights: Mapping[str, Tensor]) -> bytes:
    """What a safetensors file begins with: the length of a JSON, then the JSON, which says where
    behind it each weight lies."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in weights.items():
        begin, end = end, end + 4 * weight.numel()
        header[name] = {
            "dtype": "F32",
            "shape": list(weight.shape),
            "data_offsets": [begin, end],
        }
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)  # so that the weights are aligned
    return len(encoded).to_bytes(8, "little") + encoded


def _config(sizes: ModelConfig) -> dict[str, Any]:
    """What transformers builds the model from, its dropouts as ours: none."""
    own = {theirs: getattr(sizes, ours) for ours, theirs in _SIZES.items()}
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **own,
        "n_ctx": sizes.context,  # the older name of n_positions, which other programs read
        "n_inner": None,
        **_FORMULAS,
        **dropouts,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
    }


def _ends(sizes: ModelConfig) -> dict[str, Any]:
    """The id that begins and ends texts, if the model has it: transformers would assume it."""
    end = tokenizer.END_OF_TEXT if sizes.vocabulary > tokenizer.END_OF_TEXT else None
    return {"bos_token_id": end, "eos_token_id": end}


def _tokenizer_files(context: int) -> dict[str, bytes]:
    """The vocabulary as transformers reads it, by file name: letters stand for bytes there."""
    end = tokenizer.decode([tokenizer.END_OF_TEXT])
    ids = tokenizer.vocabulary()  # which checks the list of merges too
    letters = {
        byte: chr(byte) if id_ < _PRINTABLE else chr(0x100 + id_ - _PRINTABLE)
        for (byte,), id_ in list(ids.items())[:256]
    }
    spelt = {"".join(letters[byte] for byte in token): id_ for token, id_ in ids.items()}
    about = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
    }
    return {
        "merges.txt": Path(tokenizer.__file__).with_name("vocab.bpe").read_bytes(),
        "vocab.json": msgspec.json.encode(spelt | {end: tokenizer.END_OF_TEXT}),
        "tokenizer_config.json": _encoded(about),
    }


def _decoded(path: Path, type_: type[_T]) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); take a folder that transformers' "
            "save_pretrained wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is damaged ({error}); fetch it again") from error


def _encoded(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"
