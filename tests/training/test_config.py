"""Which settings are refused, how a batch is cut up, and what of it all is the training's own."""

import math
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from training.checkpoint import fingerprint
from training.config import PRESETS, BadInput, GuardConfig, ModelConfig, TrainingConfig

TRAPEZOID = {"schedule": "trapezoid"}
NO_NUMBERS = (math.inf, -math.inf, math.nan)


def convert(tree: object) -> TrainingConfig:
    return msgspec.convert(tree, TrainingConfig, strict=False)


@pytest.mark.parametrize(
    ("tree", "part"),
    [
        ({"model": "gpt3"}, "model"),
        ({"model": {"layers": 1, "heads": 3, "width": 4}}, "heads 3 do not divide width 4"),
        ({"model": {"layers": 1, "heads": 1, "width": 4, "depth": 2}}, "depth"),
        ({"model": {"layers": 1, "heads": 1, "width": 4, "vocabulary": 65537}}, "vocabulary"),
        ({"batch_tokens": 1000}, "batch_tokens 1000 is not a multiple"),
        ({"zero_stage": 4}, "zero_stage"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"stepz": 1}, "stepz"),
        ({"steps": 10, "warmup_steps": 11}, "warmup_steps 11 .* exceed steps 10"),
        (
            TRAPEZOID | {"steps": 10, "warmup_steps": 5, "decay_steps": 6},
            "warmup_steps 5 and decay_steps 6 exceed steps 10",
        ),
        ({"decay_steps": 1}, 'decay_steps: only schedule = "trapezoid"'),
        ({"schedule": "linear"}, "schedule"),
        ({"compile": True, "zero_stage": 3}, "compile: not at zero_stage 3"),
        ({"offload_optimizer": True, "zero_stage": 0}, "offload_optimizer: needs zero_stage 1"),
        ({"sample": {"top_p": 0}}, "top_p"),
        ({"precision": "fp8"}, "precision"),
        ({"stop_after": 0}, "stop_after"),
        ({"guard": {"window": 7}}, r"guard\.window"),
        ({"guard": {"rollback": "perhaps"}}, r"guard\.rollback"),
        ({"guard": {"zscore": 3}}, "zscore"),
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"device": "cuda"}, "device"),
    ],
)
def test_wrong_settings_are_refused_by_their_name(tree: object, part: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=part):
        convert(tree)


@pytest.mark.parametrize(
    "tree",
    [
        TRAPEZOID | {"steps": 10, "warmup_steps": 4, "decay_steps": 6},
        {"steps": 10, "warmup_steps": 10},
        {"compile": True, "zero_stage": 2},
        {"offload_optimizer": True, "zero_stage": 1},
    ],
)
def test_what_just_fits_is_taken(tree: dict[str, Any]) -> None:
    config = convert(tree)
    assert {name: getattr(config, name) for name in tree} == tree


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_no_setting_is_a_number_that_json_does_not_have(value: float) -> None:
    """It would be null in a checkpoint's marker, which nobody could read again."""
    for path in ((), ("guard",), ("sample",)):
        part: Any = TrainingConfig()
        for name in path:
            part = getattr(part, name)
        for name in (n for n in part.__struct_fields__ if type(getattr(part, n)) is float):
            tree: dict[str, Any] = {name: value}
            for outer in path:
                tree = {outer: tree}
            with pytest.raises(msgspec.ValidationError, match=name):
                convert(tree)


def test_a_table_of_sizes_is_taken_in_place_of_a_preset() -> None:
    config = convert({"model": {"layers": 2, "heads": 2, "width": 8, "context": 512}})
    assert config.sizes() == ModelConfig(layers=2, heads=2, width=8, context=512)
    assert config.batch_windows() == 1024


def test_presets_are_the_published_shapes() -> None:
    shapes = {name: (s.layers, s.heads, s.width) for name, s in PRESETS.items()}
    assert shapes == {
        "gpt2-small": (12, 12, 768),
        "gpt2-medium": (24, 16, 1024),
        "gpt2-large": (36, 20, 1280),
        "gpt2-xl": (48, 25, 1600),
    }
    assert {(s.context, s.vocabulary) for s in PRESETS.values()} == {(1024, 50257)}


def test_presets_have_the_published_numbers_of_parameters() -> None:
    assert {name: sizes.parameters() for name, sizes in PRESETS.items()} == {
        "gpt2-small": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 99), st.integers(2, 999))
def test_parameters_are_those_of_the_weights_by_their_names(
    layers: int, width: int, context: int, vocabulary: int
) -> None:
    square, line = width * width, width
    attention = 3 * square + 3 * line + square + line
    mlp = 4 * square + 4 * line + 4 * square + line
    block = attention + mlp + 2 * 2 * line
    sizes = ModelConfig(layers=layers, heads=1, width=width, context=context, vocabulary=vocabulary)
    embeddings = vocabulary * width + context * width
    assert sizes.parameters() == embeddings + layers * block + 2 * width


@given(st.integers(2, 65536))
def test_the_padded_vocabulary_is_the_next_multiple_of_64(vocabulary: int) -> None:
    padded = ModelConfig(layers=1, heads=1, width=1, vocabulary=vocabulary).padded_vocabulary()
    assert padded % 64 == 0 and 0 <= padded - vocabulary < 64


def batch_of(windows: int, micro: int, context: int = 2) -> TrainingConfig:
    sizes = ModelConfig(layers=1, heads=1, width=1, context=context)
    return TrainingConfig(model=sizes, batch_tokens=windows * context, micro_batch=micro)


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 40), st.none() | st.integers(1, 40))
def test_a_pass_is_as_large_as_allowed_with_as_little_filling_as_can_be(
    windows: int, world: int, micro: int, fits: int | None
) -> None:
    config = batch_of(windows, micro)
    found = config.micro_windows(world, fits=fits)
    bound = min(micro, fits) if fits else micro
    share = math.ceil(windows / world)
    passes = math.ceil(share / found)
    assert 1 <= found <= bound
    assert config.rank_windows(world) == share
    assert passes == min(math.ceil(share / size) for size in range(1, bound + 1))
    filling = passes * found - share
    assert filling == min(
        passes * size - share for size in range(1, bound + 1) if passes * size >= share
    )
    assert filling < passes


@pytest.mark.parametrize(
    ("device", "world", "micro"),
    [
        *(("cpu", *pair) for pair in ((1, 16), (8, 16), (64, 8), (512, 1), (600, 1))),
        *(("cuda", *pair) for pair in ((1, 64), (8, 64), (3, 57), (64, 8))),
    ],
)
def test_an_automatic_micro_batch_is_bounded_by_the_device(
    device: str, world: int, micro: int
) -> None:
    assert TrainingConfig().micro_windows(world, device) == micro


def test_a_window_larger_than_the_automatic_pass_still_passes() -> None:
    assert batch_of(4, 0, context=16_385).micro_windows(1) == 1


@pytest.mark.parametrize(("ranks", "gpus", "world"), [(0, 0, 1), (0, 8, 8), (2, 0, 2), (2, 8, 2)])
def test_world(ranks: int, gpus: int, world: int) -> None:
    assert TrainingConfig(ranks=ranks).world(gpus) == world


def test_more_ranks_than_gpus_are_refused_with_what_to_do() -> None:
    with pytest.raises(BadInput, match=r'^training\.ranks: is 2, .* training\.device = "cpu"$'):
        TrainingConfig(ranks=2).world(1)


def test_trained_holds_the_marked_fields_only() -> None:
    assert TrainingConfig().trained().keys() == {
        "model", "batch_tokens", "steps", "schedule", "decay_steps", "learning_rate",
        "warmup_steps", "final_learning_rate_share", "weight_decay", "beta1", "beta2", "clip",
        "seed", "precision", "fork", "guard",
    }  # fmt: skip


SMALL = ModelConfig(layers=2, heads=2, width=4, context=4, vocabulary=100)
BASE = TrainingConfig(
    model=SMALL,
    batch_tokens=8,
    schedule="trapezoid",
    decay_steps=2,
    guard=GuardConfig(rollback=True),
)
OTHERWISE: dict[str, Any] = {
    "batch_tokens": 16, "steps": 1000, "schedule": "cosine", "decay_steps": 3,
    "learning_rate": 1e-3, "warmup_steps": 7, "final_learning_rate_share": 0.2,
    "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "clip": 2.0, "seed": 2,
    "precision": "fp32", "zero_stage": 2, "offload_optimizer": True, "micro_batch": 1,
    "compile": True, "deterministic": True, "recompute": True, "tokens": "elsewhere",
    "staging": "elsewhere", "ranks": 2, "device": "cpu", "checkpoint_every": 7,
    "keep_checkpoints": 7, "keep_every": 7, "evaluate_every": 7, "evaluate_windows": 7,
    "stop_after": 7, "tensorboard": True,
}  # fmt: skip
OF_THE_MODEL = {"layers": 3, "heads": 1, "width": 8, "context": 8, "vocabulary": 101}
OF_THE_GUARD = {
    "z_score": 7.0,
    "window": 9,
    "rollback": False,
    "rollbacks": 9,
    "skips": 9,
    "hang_s": 9.0,
}


def marked(kind: type, name: str) -> bool:
    metas = getattr(get_type_hints(kind, include_extras=True)[name], "__metadata__", ())
    return any("training" in (m.extra or {}).get("changes", ()) for m in metas if type(m) is Meta)


def changed(name: str, value: Any) -> TrainingConfig:
    if name == "schedule":  # a cosine has no steps at the end
        both = {"schedule": value, "decay_steps": 0}
        return msgspec.structs.replace(BASE, **both)
    return msgspec.structs.replace(BASE, **{name: value})


def test_ranks_wait_for_each_other_longer_than_one_may_hang() -> None:
    for hang_s in (0.0, 5.0, 7200.0):
        config = TrainingConfig(guard=GuardConfig(hang_s=hang_s))
        assert config.collective_timeout_s() > max(hang_s, 200.0)


def test_every_field_is_tried_below() -> None:
    assert OTHERWISE.keys() | {"model", "fork", "guard", "sample"} == {
        *TrainingConfig.__struct_fields__
    }
    assert OF_THE_MODEL.keys() == {*ModelConfig.__struct_fields__}
    assert OF_THE_GUARD.keys() == {*GuardConfig.__struct_fields__}


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_marked_fields_and_no_others_are_in_the_fingerprint(name: str) -> None:
    other = changed(name, OTHERWISE[name])
    assert getattr(other, name) != getattr(BASE, name)
    differs = fingerprint(other, "tokens") != fingerprint(BASE, "tokens")
    assert differs == marked(TrainingConfig, name)


@pytest.mark.parametrize("name", OF_THE_MODEL)
def test_all_of_a_models_sizes_are_in_the_fingerprint(name: str) -> None:
    sizes = msgspec.structs.replace(SMALL, **{name: OF_THE_MODEL[name]})
    assert marked(ModelConfig, name)
    assert fingerprint(changed("model", sizes), "tokens") != fingerprint(BASE, "tokens")


@pytest.mark.parametrize("name", OF_THE_GUARD)
def test_of_the_guard_counts_what_moves_a_run_that_rolls_back(name: str) -> None:
    other = changed("guard", msgspec.structs.replace(BASE.guard, **{name: OF_THE_GUARD[name]}))
    differs = fingerprint(other, "tokens") != fingerprint(BASE, "tokens")
    assert differs == marked(GuardConfig, name)


def test_a_guard_that_only_tells_is_no_part_of_the_training() -> None:
    plain = msgspec.structs.replace(BASE, guard=GuardConfig())
    other = GuardConfig(z_score=1.0, window=8, skips=0, hang_s=0.0)
    assert plain.trained()["guard"] == {}
    assert msgspec.structs.replace(BASE, guard=other).trained() == plain.trained()


def test_how_text_is_drawn_is_no_part_of_the_training() -> None:
    wild = convert({"sample": {"temperature": 2.0, "top_k": 1, "top_p": 0.5, "max_new_tokens": 1}})
    assert wild.trained() == TrainingConfig().trained()


def test_a_preset_and_its_sizes_by_hand_are_the_same_training() -> None:
    by_hand = TrainingConfig(model=ModelConfig(layers=12, heads=12, width=768))
    assert by_hand.trained() == TrainingConfig(model="gpt2-small").trained()


def test_stop_after_moves_only_the_last_step() -> None:
    halted = TrainingConfig(stop_after=10)
    assert (TrainingConfig().last_step(), halted.last_step()) == (19_073, 10)
    assert TrainingConfig(steps=20, warmup_steps=2, stop_after=30).last_step() == 20


@pytest.mark.parametrize("name", OTHERWISE)
def test_settings_survive_json(name: str) -> None:
    config = changed(name, OTHERWISE[name])
    assert msgspec.json.decode(msgspec.json.encode(config), type=TrainingConfig) == config
