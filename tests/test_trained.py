"""What the story ends in, trained on the tokens of a web of a hundred pages: one course of losses,
whatever happens on the way."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import story
from tests.story import Story

pytestmark = pytest.mark.slow

SHORT = (
    "training.steps=20",
    "training.warmup_steps=5",
    "training.checkpoint_every=5",
    "training.model={layers = 2, heads = 2, width = 64, context = 64}",
    "training.learning_rate=5e-3",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with story.told(tmp_path_factory.mktemp("web")) as found:
        yield found


@pytest.fixture(scope="module")
def rebuilt(told: Story, tmp_path_factory) -> Path:
    """A run up to its tokens."""
    root = tmp_path_factory.mktemp("rebuilt")
    told.run("rebuild", root, "--local")
    return root


@pytest.fixture(scope="module")
def straight(told: Story, rebuilt: Path) -> list[float]:
    """The losses of twenty steps in one go, without Ray."""
    assert "trained to step 20 of 20" in told.run("train", rebuilt, *SHORT, "--local")
    return story.losses(rebuilt)


@pytest.fixture
def root(rebuilt: Path, tmp_path: Path) -> Path:
    """The same run, where nothing is trained yet."""
    story.copy(rebuilt, tmp_path)
    return tmp_path


def test_a_training_can_be_used_and_is_not_done_twice(told: Story, rebuilt: Path, straight):
    assert len(straight) == 20 and straight[-1] < straight[0] - 1
    assert "trained to step 20 already" in told.run("train", rebuilt, *SHORT)
    assert "perplexity" in told.run("evaluate", rebuilt, *SHORT)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "generate", story.RECIPE, "The module",
         f"root={rebuilt}", *SHORT, "training.sample.max_new_tokens=5"],
        capture_output=True, text=True, cwd=story.ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("The module")


def test_a_training_on_ray_goes_on_after_ctrl_c_and_a_lost_rank_as_if_in_one_go(
    told: Story, straight, root: Path
):
    with told.started("train", root, *SHORT) as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 7)
        process.send_signal(signal.SIGINT)
        assert story.interrupted(process)
    assert story.ended(ranks)
    refused = told.run("train", root, *SHORT, "--local", "training.ranks=1", code=2)
    assert "training.ranks: is 1, but" in refused.splitlines()[-1]
    (metrics,) = root.glob("training/*/metrics.jsonl")
    given_up = metrics.stat().st_ino  # who goes on writes the lines up to its checkpoint anew

    def goes_on() -> bool:
        return metrics.stat().st_ino != given_up and len(story.losses(root)) >= 11

    with told.started("train", root, *SHORT) as process:
        ranks = story.ranks_until(process, goes_on)
        story.kill(min(filter(story.is_rank, ranks)))  # what a rank itself forks comes later
        assert len(story.losses(root)) < 20, "without it there is no further step"
        output, _ = process.communicate(timeout=story.DEADLINE_S)
    assert process.returncode == 0 and "trained to step 20 of 20" in output
    assert story.losses(root) == straight


def test_a_training_without_ray_that_is_halted_or_ended_goes_on_as_if_in_one_go(
    told: Story, straight, root: Path
):
    with told.started("train", root, *SHORT, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 3)
        process.send_signal(signal.SIGINT)
        assert story.interrupted(process)
    assert story.ended(ranks)
    told.run("train", root, *SHORT, "--local", "training.stop_after=10")
    assert story.losses(root) == straight[:10]
    with told.started("train", root, *SHORT, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 13)
        process.kill()
    assert story.ended(ranks)
    told.run("train", root, *SHORT, "--local")
    assert story.losses(root) == straight


def test_a_disk_too_small_for_a_checkpoint_is_told_and_nothing_of_it_stays(
    told: Story, rebuilt: Path, tmp_path: Path
):
    with story.disk(tmp_path / "disk", size="24m") as disk:
        story.copy(rebuilt, disk / "run")
        output = told.run("train", disk / "run", *SHORT, "training.steps=5", "--local", code=1)
        assert "the disk is full; free some space" in output.splitlines()[-1]
        assert not list(disk.glob("run/training/*/*step-*"))
