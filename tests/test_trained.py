"""What the story ends in, trained on the tokens of a web of a hundred pages: one course of losses,
whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import story
from tests.story import Story

torch = pytest.importorskip("torch", reason="training is an extra")
os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer, GPT2LMHeadModel  # noqa: E402

from training import huggingface, parts  # noqa: E402
from training.model import own_weights  # noqa: E402

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


def run(root: Path, command: str, word: str, *more: str, code: int = 0):
    """Run a command that takes a word of its own, on what is trained."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", command, story.RECIPE, word, f"root={root}", *SHORT,
         *more],
        capture_output=True, text=True, cwd=story.ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def root(rebuilt: Path, tmp_path: Path) -> Path:
    """The same run, where nothing is trained yet."""
    story.copy(rebuilt, tmp_path)
    return tmp_path


def test_a_training_can_be_used_and_is_not_done_twice(told: Story, rebuilt: Path, straight):
    assert len(straight) == 20 and straight[-1] < straight[0] - 1
    assert "trained to step 20 already" in told.run("train", rebuilt, *SHORT)
    assert "perplexity" in told.run("evaluate", rebuilt, *SHORT)
    said = run(rebuilt, "generate", "The module", "training.sample.max_new_tokens=5")
    assert said.stdout.startswith("The module")


def test_a_training_can_be_exported_for_transformers(straight, rebuilt: Path, tmp_path: Path):
    folder = tmp_path / "exported"
    assert "the weights after step 20" in run(rebuilt, "export", str(folder)).stdout
    assert "is there already" in run(rebuilt, "export", str(folder), code=2).stderr
    theirs, ours = GPT2LMHeadModel.from_pretrained(folder), huggingface.load(folder)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("The module is a list").input_ids])
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours.logits(ids), atol=1e-4)
    (saved,) = rebuilt.glob("training/*/step-000020")
    weights = parts.weights(saved)
    assert all(torch.equal(w, weights[name]) for name, w in own_weights(ours).items())


def test_a_training_on_ray_saves_at_ctrl_c_and_outlives_a_lost_rank_as_if_in_one_go(
    told: Story, straight, root: Path
):
    with told.started("train", root, *SHORT) as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 7)
        process.send_signal(signal.SIGINT)
        assert story.interrupted(process)
    assert story.ended(ranks)
    done = len(story.losses(root))
    assert story.losses(root) == straight[:done]
    if done < 20:  # it was not over before it was asked
        assert f"step {done} of 20" in told.run("status", root, *SHORT)
        assert list(root.glob(f"training/*/step-{done:06d}/COMPLETE"))
    told.run("train", root, *SHORT, "training.stop_after=12")
    with told.started("train", root, *SHORT, "training.checkpoint_every=100") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 13)
        story.kill(min(filter(story.is_rank, ranks)))  # what a rank itself forks comes later
        output, _ = process.communicate(timeout=story.DEADLINE_S)
    assert process.returncode == 0 and "trained to step 20 of 20" in output
    assert story.losses(root) == straight


def test_a_training_without_ray_that_is_halted_asked_or_killed_goes_on_as_if_in_one_go(
    told: Story, straight, root: Path
):
    with told.started("train", root, *SHORT, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 3)
        process.send_signal(signal.SIGTERM)
        assert story.interrupted(process)
    assert story.ended(ranks)
    assert story.losses(root) == straight[: len(story.losses(root))]
    told.run("train", root, *SHORT, "--local", "training.stop_after=15")
    assert story.losses(root) == straight[:15]
    with told.started("train", root, *SHORT, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 16)
        process.kill()
    assert story.ended(ranks)
    told.run("train", root, *SHORT, "--local")
    assert story.losses(root) == straight


def test_a_training_that_is_asked_to_leave_while_its_ranks_start_leaves_after_its_first_step(
    told: Story, root: Path
):
    with told.started("train", root, *SHORT, "training.steps=100000", "--local") as process:
        story.wait_until(process, lambda: any(map(story.is_rank, story.descendants(process.pid))))
        process.send_signal(signal.SIGINT)
        assert story.interrupted(process)
    assert len(story.losses(root)) == 1


def test_a_rank_that_is_killed_is_told_in_one_line_by_all_others(told: Story, root: Path):
    words = ("training.steps=100000", "training.checkpoint_every=100000", "training.ranks=2")
    with told.started("train", root, *SHORT, *words, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 3)
        story.kill(max(filter(story.is_rank, ranks)))
        output, _ = process.communicate(timeout=story.DEADLINE_S)
    assert process.returncode == 1 and "Traceback" not in output, output
    last = output.splitlines()[-1]
    assert "was ended by SIGKILL; the same command goes on from the last checkpoint" in last
    assert story.ended(ranks)


def test_other_machines_go_on_with_a_training_and_a_fork_of_it_has_a_course_of_its_own(
    told: Story, straight, root: Path
):
    told.run("train", root, *SHORT, "--local", "training.stop_after=10")
    (first,) = root.glob("training/*")
    alone = ("training.ranks=1", "training.zero_stage=3")
    told.run("train", root, *SHORT, "--local", *alone)
    assert story.losses(root) == pytest.approx(straight, abs=1e-4)
    fork = (f"training.fork={first}/step-000010", "training.learning_rate=1e-3")
    assert "step 20 of 20" in told.run("train", root, *SHORT, "--local", *alone, *fork)
    (forked,) = (path for path in root.glob("training/*") if path != first)
    lines = [json.loads(line) for line in (forked / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == list(range(11, 21))
    assert lines[0]["loss"] == pytest.approx(straight[10], abs=1e-4)
    assert lines[-1]["loss"] != pytest.approx(straight[-1], abs=1e-4)
    shown = told.run("status", root)
    assert str(first) in shown and str(forked) in shown


def test_tokens_alone_are_trained_on_where_there_is_no_ray(
    told: Story, straight, rebuilt: Path, tmp_path: Path
):
    (shards,) = (rebuilt / "tokens").iterdir()
    shutil.copytree(shards, tmp_path / "shards")
    named = [f"training.tokens={tmp_path}/shards", f"root={tmp_path}/root", "crawl.submissions=[]"]
    words = ["train", story.RECIPE, *named, *SHORT, "--local"]
    code = f"import sys; sys.modules['ray'] = None; sys.argv[1:] = {words!r}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; from pipeline.__main__ import main; main()"],
        capture_output=True, text=True, cwd=story.ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert story.losses(tmp_path / "root") == straight
    (mine,), (its,) = (tmp_path / "root/training").iterdir(), (rebuilt / "training").iterdir()
    assert mine.name == its.name  # the same settings on the same tokens, wherever they lie


def test_a_rank_that_hangs_is_ended_and_told_with_its_stack(told: Story, root: Path):
    words = ("training.guard.hang_s=4", "training.steps=100000", "training.checkpoint_every=100000")
    with told.started("train", root, *SHORT, *words, "--local") as process:
        ranks = story.ranks_until(process, lambda: len(story.losses(root)) >= 3)
        frozen = max(pid for pid in ranks if story.is_rank(pid))
        os.kill(frozen, signal.SIGSTOP)
        output, _ = process.communicate(timeout=story.DEADLINE_S)
    assert process.returncode == 1
    last = output.splitlines()[-1]
    assert "no step was finished for training.guard.hang_s" in last
    stacks = {str(path): path.read_text() for path in root.glob("training/*/hung-*.txt")}
    assert any(path in last for path in stacks)
    assert any("all_reduce" in stack for stack in stacks.values())
    assert story.ended(ranks)


def test_a_disk_too_small_for_a_checkpoint_is_told_and_nothing_of_it_stays(
    told: Story, rebuilt: Path, tmp_path: Path
):
    with story.disk(tmp_path / "disk", size="24m") as disk:
        story.copy(rebuilt, disk / "run")
        output = told.run("train", disk / "run", *SHORT, "training.steps=5", "--local", code=1)
        assert "the disk is full; free some space" in output.splitlines()[-1]
        assert not list(disk.glob("run/training/*/*step-*"))
