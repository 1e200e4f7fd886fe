"""The ZeRO engine beside the plain one, on real ranks: one process group a world and test."""

import itertools
import shutil
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from tests.training import runs
from tests.training.runs import changed
from training import checkpoint, course, loop, parts
from training.config import GuardConfig, ModelConfig, TrainingConfig
from training.loop import Line

pytestmark = pytest.mark.slow

STAGES = (0, 1, 2, 3)
WORLDS = (1, 2, 3)
Configs = dict[str, TrainingConfig]


def each(configs: Configs, root: Path) -> dict[str, list[Line]]:
    """On a rank: train each of these; their lines by name."""
    return {name: runs.train(runs.zero(config, root / name)) for name, config in configs.items()}


@pytest.mark.parametrize("world", [1, 2])
def test_every_stage_gives_the_losses_of_plain_torch(
    config: TrainingConfig, tokens_folder: Path, world: int
) -> None:
    long = changed(config, steps=50)
    root = tokens_folder.parent
    expected = runs.train(runs.plain(long, root / "plain"))
    norms = [line["grad_norm"] for line in expected]
    assert min(norms) < long.clip < max(norms)  # some are cut, some are not
    found = runs.ranks(world, each, {f"{n}": changed(long, zero_stage=n) for n in STAGES}, root)
    for stage, lines in zip(STAGES, found.values(), strict=True):
        assert len(lines) == 50 and sum("validation_loss" in line for line in lines) == 10
        assert runs.apart(lines, expected) < (1e-5 if stage == 0 else 1e-4), stage


def ways(config: TrainingConfig) -> Configs:
    """Every way to train that gives the same losses, or whose clipping does."""
    found = {}
    for n in STAGES:
        there = changed(config, zero_stage=n)
        found |= {
            f"recompute-{n}": changed(there, recompute=True),
            f"free-{n}": changed(there, clip=0.0),
            f"cut-{n}": changed(there, clip=0.05),
            f"micro-{n}": changed(there, micro_batch=1),
        }
        if n:
            found[f"offload-{n}"] = changed(there, offload_optimizer=True)
    return found


def test_every_way_to_train_gives_the_losses_of_plain_torch(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    # ZeRO 3 leaves weights below 100,000 numbers whole: this table it does divide.
    table = ModelConfig(layers=2, heads=2, width=16, context=16, vocabulary=8000)
    short = changed(config, model=table, stop_after=6)
    root = tokens_folder.parent
    expected = {
        clip: runs.train(runs.plain(changed(short, clip=clip), root / f"plain-{clip}"))
        for clip in (0.0, 0.05, short.clip)
    }
    assert runs.apart(expected[0.0], expected[0.05]) > 0.01
    assert min(line["grad_norm"] for line in expected[0.05]) > 0.05
    configs = ways(short)
    for name, lines in runs.ranks(2, each, configs, root).items():
        assert runs.apart(lines, expected[configs[name].clip]) < 1e-4, name
        its = parts.weights(root / name / "step-000006")
        wanted = parts.weights(root / f"plain-{configs[name].clip}" / "step-000006")
        assert its.keys() == wanted.keys()
        for weight, value in its.items():
            assert torch.allclose(value, wanted[weight], atol=1e-3), (name, weight)


def test_ranks_may_be_uneven_or_have_nothing_to_do(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    """8 windows on 3 ranks; 2 on 3; looks at 4 windows, and at 1."""
    config = changed(config, stop_after=10)
    kinds = {"eight": config, "two": changed(config, batch_tokens=32, evaluate_windows=1)}
    root = tokens_folder.parent
    configs = {f"{k}-{n}": changed(kinds[k], zero_stage=n) for k in kinds for n in STAGES}
    found = runs.ranks(3, each, configs, root)
    for kind, its in kinds.items():
        expected = runs.train(runs.plain(its, root / kind))
        for stage in STAGES:
            assert runs.apart(found[f"{kind}-{stage}"], expected) < 1e-4, (kind, stage)


def cover() -> list[tuple[int, int, int, int]]:
    """Stage and world that write, stage and world that go on: two orthogonal Latin squares of
    order 4 hold every pair of the four; their fourth world is another two."""
    worlds, doubled = (1, 2, 3, 2), (0, 2, 3, 1)
    return [
        (a, worlds[a ^ b], b, worlds[doubled[a] ^ b]) for a, b in itertools.product(STAGES, STAGES)
    ]


def test_the_cover_holds_every_pair() -> None:
    levels = (STAGES, WORLDS, STAGES, WORLDS)
    for i, j in itertools.combinations(range(4), 2):
        found = {(row[i], row[j]) for row in cover()}
        assert found == set(itertools.product(levels[i], levels[j]))


def resumed(configs: dict[str, tuple[TrainingConfig, Path]], root: Path) -> dict[str, list[Line]]:
    """On a rank: go on after a copy of that step's folder; all lines by name."""
    if dist.get_rank() == 0:
        for name, (_, source) in configs.items():
            shutil.copytree(source, root / name / source.name)
            shutil.copy(source.parent / "metrics.jsonl", root / name)
    dist.barrier()
    return each({name: config for name, (config, _) in configs.items()}, root)


def test_any_checkpoint_loads_at_any_stage_and_world_and_the_same_goes_on_bit_for_bit(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    root, short = tokens_folder.parent, changed(config, steps=14, checkpoint_every=7)
    at = {stage: changed(short, zero_stage=stage) for stage in STAGES}
    whole = {}
    for world in WORLDS:
        named = {f"whole-{stage}-{world}": at[stage] for stage in STAGES}
        whole |= runs.ranks(world, each, named, root)
    expected = runs.train(runs.plain(short, root / "plain"))
    for world in WORLDS:
        rows = [row for row in cover() if row[3] == world]
        rows += [(stage, world, stage, world) for stage in STAGES]
        named = {
            f"{a}-{w}-to-{b}-{world}": (at[b], root / f"whole-{a}-{w}" / "step-000007")
            for a, w, b, _ in rows
        }
        for name, lines in runs.ranks(world, resumed, named, root).items():
            assert runs.apart(lines, expected) < 1e-4, name
            its, now = name.split("-to-")
            if its == now:
                assert runs.course(lines) == runs.course(whole[f"whole-{now}"]), name


def mixed(config: TrainingConfig, root: Path) -> dict[str, float]:
    """On a rank: what a state loses on its way through each stage, offloaded too."""
    source = runs.plain(config, root / "source")
    source.engine.step(loop.share(source, 0), config.batch_tokens, 1e-2)
    expected = runs.state(source.engine)
    lost = {}
    for stage, offload in [(0, False), *itertools.product((1, 2, 3), (False, True))]:
        there = changed(config, zero_stage=stage, offload_optimizer=offload)
        engine = runs.zero(there, root / "none").engine
        engine.load(expected.__getitem__, 1)
        found = runs.state(engine)
        assert list(found) == list(expected)
        lost[f"{stage}{offload}"] = max(
            float((found[name] - expected[name]).abs().max()) for name in expected
        )
    return lost


def drawing(config: TrainingConfig, folder: Path) -> tuple[list[float], list[float]]:
    """On a rank: what all ranks draw behind a checkpoint, and again once they have gone on from
    it."""
    run = runs.zero(changed(config, stop_after=5), folder)
    torch.manual_seed(100 + dist.get_rank())
    loop.train(run)
    found = []
    for _ in range(2):
        drawn: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(drawn, float(torch.rand(1)))
        found.append(drawn)
        course.take_up(run, course.newest(run))
    return found[0], found[1]


def test_each_rank_goes_on_with_its_own_random_numbers(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    before, after = runs.ranks(2, drawing, config, tokens_folder.parent / "run")
    assert before == after and before[0] != before[1]


def test_bf16_stays_near_plain_torch_at_every_stage(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    root = tokens_folder.parent
    exact = runs.train(runs.plain(config, root / "exact"))
    rough = changed(config, precision="bf16")
    expected = runs.train(runs.plain(rough, root / "plain"))
    assert runs.apart(expected, exact) > 1e-4  # it does round
    configs = {f"{n}": changed(rough, zero_stage=n) for n in STAGES}
    for name, lines in runs.ranks(2, each, configs, root).items():
        assert runs.apart(lines, expected) < 2e-2, name
        assert runs.apart(lines, exact) > 1e-4, name


def compiled(configs: Configs, root: Path) -> dict[str, list[Line]]:
    """On a rank, where nothing can be compiled: as far as the graphs and their gradients."""
    real = torch.compile
    torch.compile = partial(real, backend="aot_eager")  # type: ignore[assignment]
    block = torch.nn.Module.compile
    torch.nn.Module.compile = partialmethod(block, backend="aot_eager")  # type: ignore[assignment]
    return each(configs, root)


def test_compiled_blocks_in_bf16_give_the_losses_of_plain_torch_at_every_stage_they_may_have(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    """What the recipes of the published sizes ask for."""
    there = changed(config, precision="bf16", stop_after=8)
    fused = changed(there, compile=True)
    root = tokens_folder.parent
    expected = runs.train(runs.plain(there, root / "plain"))
    configs = {f"{n}": changed(fused, zero_stage=n) for n in (0, 1, 2)}
    configs["recompute"] = changed(fused, recompute=True)
    configs["offload"] = changed(fused, offload_optimizer=True)
    for name, lines in runs.ranks(2, compiled, configs, root).items():
        assert runs.apart(lines, expected) < 2e-2, name


def settled(config: TrainingConfig, root: Path) -> list[list[Line]]:
    """On a rank: the same, twice, with kernels whose bits are always the same."""
    from training import rank

    assert rank._join_ranks(config) == runs.CPU
    assert torch.are_deterministic_algorithms_enabled() and torch._inductor.config.deterministic
    return [runs.train(runs.zero(config, root / name)) for name in ("one", "two")]


def test_a_deterministic_run_is_the_same_twice(config: TrainingConfig, tokens_folder: Path) -> None:
    root, there = tokens_folder.parent, changed(config, deterministic=True, precision="bf16")
    one, two = runs.ranks(2, settled, there, root)
    assert runs.course(one) == runs.course(two)
    expected = runs.train(runs.plain(changed(config, precision="bf16"), root / "plain"))
    assert runs.apart(one, expected) < 2e-2


@pytest.mark.parametrize("world", [1, 3])
def test_a_state_comes_back_from_every_stage_bit_for_bit(
    config: TrainingConfig, tokens_folder: Path, world: int
) -> None:
    lost = runs.ranks(world, mixed, config, tokens_folder.parent)
    assert len(lost) == 7 and set(lost.values()) == {0.0}


def both(configs: Configs, root: Path) -> dict[str, list[list[Line]]]:
    """On a rank: each with a gradient that is lost once, and without that batch."""
    found = {}
    for name, config in configs.items():
        out = root / f"{name}-out"
        if dist.get_rank() == 0:
            out.mkdir()
            course.write_skipped(out, [5])
        dist.barrier()
        model = runs.unsound(config)
        there = runs.train(runs.zero(config, root / name, model))
        found[name] = [there, runs.train(runs.zero(config, out))]
    return found


def test_a_step_whose_gradient_is_not_finite_on_one_rank_is_no_step_on_any(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    flat, root = runs.flat(config, stop_after=9), tokens_folder.parent
    runs.put(flat, tokens_folder, 5, [runs.BAD])
    configs = {f"{n}": changed(flat, zero_stage=n) for n in STAGES}
    offloaded = {f"{n}-off": changed(configs[f"{n}"], offload_optimizer=True) for n in (1, 2, 3)}
    expected = runs.train(runs.plain(flat, root / "plain", runs.unsound(flat)))
    for name, (lines, without) in runs.ranks(2, both, configs | offloaded, root).items():
        assert [line["applied"] for line in lines] == [True] * 5 + [False] + [True] * 3, name
        assert [line["steps_not_applied"] for line in lines] == [0] * 5 + [1] * 4, name
        assert lines[5]["grad_norm"] is None and lines[5]["loss"] < 5
        for key in ("loss", "grad_norm"):
            follow = [line[key] for line in lines[6:]]
            assert follow == [line[key] for line in without[5:8]], (name, key)
        assert runs.apart(lines, expected) < 1e-4
        found = checkpoint.newest(root / name)
        assert found is not None and (found.marker.step, found.marker.applied) == (9, 8)


def test_a_spike_is_rolled_back_on_two_ranks_as_on_one(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    root, guard = tokens_folder.parent, GuardConfig(z_score=8.0, window=8, rollback=True)
    there = runs.flat(config, guard=guard, checkpoint_every=6, stop_after=15)
    runs.put(there, tokens_folder, 9, [runs.BAD] * 15)
    expected = runs.train(runs.plain(there, root / "plain"))
    configs = {f"{n}": changed(there, zero_stage=n) for n in STAGES}
    found = runs.ranks(2, each, configs, root)
    again = runs.ranks(2, each, {f"{n}-again": changed(there, zero_stage=n) for n in (1, 3)}, root)
    for name, lines in found.items():
        assert runs.apart(lines, expected) < 1e-4, name
        assert course.read_skipped(root / name) == {9}
        assert len((root / name / "spikes.jsonl").read_bytes().splitlines()) == 1
        if f"{name}-again" in again:
            assert runs.course(again[f"{name}-again"]) == runs.course(lines), name


def overflowing(config: TrainingConfig, root: Path) -> list[tuple[bool, bool, bool]]:
    """On a rank: a step from weights at which a gradient overflows, at each stage: whether it was
    applied, whether its loss was finite, whether anything moved."""
    found = []
    for stage in STAGES:
        run = runs.zero(changed(config, zero_stage=stage), root / "none")
        before = runs.state(run.engine)
        # gelu(1e20) is finite, but its slope is computed as 0 times infinity.
        before["weights/h.1.mlp.c_fc.bias"][3] = 1e20
        run.engine.load(before.__getitem__, 0)
        step = run.engine.step(loop.share(run, 0), config.batch_tokens, 1e-2)
        after = runs.state(run.engine)
        moved = any(not torch.equal(before[name], after[name]) for name in before)
        found.append((step.applied, step.loss < 100.0, moved))
    return found


def test_a_gradient_that_overflows_is_seen_at_every_stage(
    config: TrainingConfig, tokens_folder: Path
) -> None:
    found = runs.ranks(2, overflowing, config, tokens_folder.parent)
    assert found == [(False, True, False)] * 4


def test_what_deepspeed_is_told_is_derived(config: TrainingConfig, tokens_folder: Path) -> None:
    from training import zero

    told = zero.settings(changed(config, zero_stage=2, offload_optimizer=True), 3, 2)
    assert told["zero_optimization"]["stage"] == 2
    assert told["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    # 8 windows on 3 ranks are at most 3 a rank: two passes of two, filled up.
    assert (told["gradient_accumulation_steps"], told["train_batch_size"]) == (2, 12)
    assert told["gradient_clipping"] == config.clip
    assert zero.settings(changed(config, zero_stage=0), 1, 2)["gradient_clipping"] == 0.0
