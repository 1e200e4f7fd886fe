import msgspec
import pytest

from training.config import PRESETS, BadInput, ModelConfig, TrainingConfig


def convert(tree: object) -> TrainingConfig:
    return msgspec.convert(tree, TrainingConfig, strict=False)


@pytest.mark.parametrize(
    ("tree", "part"),
    [
        ({"model": "gpt3"}, "model"),
        ({"model": {"layers": 1, "heads": 3, "width": 4}}, "heads 3 do not divide width 4"),
        ({"model": {"layers": 1, "heads": 1, "width": 4, "depth": 2}}, "depth"),
        ({"batch_tokens": 1000}, "batch_tokens 1000 is not a multiple"),
        ({"zero_stage": 4}, "zero_stage"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"stepz": 1}, "stepz"),
        ({"steps": 10, "warmup_steps": 11}, "warmup_steps 11 exceed steps 10"),
        ({"sample": {"top_p": 0}}, "top_p"),
        ({"precision": "fp8"}, "precision"),
        ({"stop_after": 0}, "stop_after"),
    ],
)
def test_wrong_settings_are_refused_by_their_name(tree: object, part: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=part):
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


def test_ranks_that_do_not_divide_the_batch_are_named() -> None:
    with pytest.raises(BadInput, match=r"training\.batch_tokens.*training\.ranks 3"):
        TrainingConfig().rank_windows(3)


def test_a_micro_batch_that_does_not_divide_the_share_is_named() -> None:
    with pytest.raises(BadInput, match=r"training\.micro_batch: 5"):
        TrainingConfig(micro_batch=5).micro_windows(8)


@pytest.mark.parametrize(("world", "micro"), [(1, 16), (8, 16), (64, 8), (512, 1)])
def test_an_automatic_micro_batch_divides_the_share_and_is_bounded(world: int, micro: int) -> None:
    assert TrainingConfig().micro_windows(world) == micro


@pytest.mark.parametrize(("ranks", "gpus", "world"), [(0, 0, 1), (0, 8, 8), (2, 0, 2), (2, 8, 2)])
def test_world(ranks: int, gpus: int, world: int) -> None:
    assert TrainingConfig(ranks=ranks).world(gpus) == world


def test_more_ranks_than_gpus_are_refused_with_what_to_do() -> None:
    with pytest.raises(BadInput, match=r'^training\.ranks: is 2, .* training\.device = "cpu"$'):
        TrainingConfig(ranks=2).world(1)


def test_trained_holds_the_marked_fields_only() -> None:
    assert TrainingConfig().trained().keys() == {
        "model", "batch_tokens", "steps", "learning_rate", "warmup_steps",
        "final_learning_rate_share", "weight_decay", "beta1", "beta2", "clip", "seed", "precision",
    }  # fmt: skip


def test_a_preset_and_its_sizes_by_hand_are_the_same_training() -> None:
    by_hand = TrainingConfig(model=ModelConfig(layers=12, heads=12, width=768))
    assert by_hand.trained() == TrainingConfig(model="gpt2-small").trained()


def test_stop_after_moves_only_the_last_step() -> None:
    halted = TrainingConfig(stop_after=10)
    assert (TrainingConfig().last_step(), halted.last_step()) == (19_073, 10)
    assert TrainingConfig(steps=20, warmup_steps=2, stop_after=30).last_step() == 20


def test_settings_survive_json() -> None:
    config = TrainingConfig(model=ModelConfig(layers=1, heads=1, width=4), stop_after=3)
    assert msgspec.json.decode(msgspec.json.encode(config), type=TrainingConfig) == config
