"""The demo's story: its commands in order, its end at the first failure, Ctrl-C, its last lines.

The program itself is told apart: here `pipeline` is a stand-in that says what it was asked.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pipeline.demo import __main__ as demo
from pipeline.demo import memory, summary
from pipeline.demo.server import serve
from pipeline.demo.site import build
from pipeline.report import facts
from tests.pipeline import made_run

ROOT = Path(__file__).parents[2]
RECIPE = """
root = "runs/demo"
[crawl]
submissions = ["runs/demo/web/RS_demo.zst"]
user_agent = "webtext-demo/1.0 (+http://localhost/)"
[crawl.resolve]
"*.test" = "127.0.0.1:{port}"
"""
# Runs the demo's main with every command replaced by a script that logs its words.
STORY = """
import sys
from pipeline.demo import __main__ as demo
demo._TIED = {script!r}
sys.exit(demo.main())
"""
OBEDIENT = """
import json, pathlib, sys, urllib.request
with open("asked.ndjson", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
words = dict(word.split("=", 1) for word in sys.argv[1:] if "crawl.resolve" in word)
address = (words.get('crawl.resolve."*.test"') or open("address").read()).strip('"')
request = urllib.request.Request(f"http://{address}/", headers={"Host": "nowhere.test"})
try:
    urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    print("the web answers", error.code)
"""


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """A working directory with a recipe on a free port and a report."""
    with serve(build(90, 18)) as served:
        address = served.address
    (tmp_path / "recipes").mkdir()
    port = address.rpartition(":")[2]
    (tmp_path / "recipes" / "demo.toml").write_text(RECIPE.format(port=port))
    (tmp_path / "address").write_text(address)
    run = made_run.make(tmp_path / "runs" / "demo", links=40)
    report = json.dumps(facts.gather(run, None) | {"laws": []})
    (tmp_path / "runs" / "demo" / "report.json").write_text(report)
    return tmp_path


def start(play: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STORY.format(script=textwrap.dedent(script))],
        cwd=play,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WEBTEXT_SETUP_SECONDS": "61"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(play: Path) -> list[list[str]]:
    return [json.loads(line) for line in (play / "asked.ndjson").read_text().splitlines()]


def test_tells_the_whole_story_against_a_living_web(play: Path) -> None:
    out, err = start(play, OBEDIENT).communicate(timeout=60)
    assert err == ""
    assert [words[0] for words in asked(play)] == [
        "rebuild",
        "train",
        "evaluate",
        "audit",
        "generate",
    ]
    assert asked(play)[-1] == ["generate", "recipes/demo.toml", "The module"]
    assert out.count("the web answers 404") == 5
    assert (play / "runs" / "demo" / "web" / "RS_demo.zst").stat().st_size > 10_000
    last = out.strip().splitlines()[-12:]
    assert last[0].startswith("funnel")
    assert "installation 61, then web" in out
    assert last[-1].split() == ["report", "runs/demo/report.html"]


def test_a_taken_port_is_told_to_every_command(play: Path) -> None:
    port = int((play / "address").read_text().rpartition(":")[2])
    with serve(build(90, 18), port):
        _, err = start(play, OBEDIENT).communicate(timeout=60)
    assert err == ""
    for words in asked(play):
        assert words[-1].startswith('crawl.resolve."*.test"="127.0.0.1:')
        assert str(port) not in words[-1]


def test_stops_at_the_first_command_that_fails_with_its_status(play: Path) -> None:
    script = OBEDIENT + "\nsys.exit(7 if sys.argv[1] == 'train' else 0)"
    story = start(play, script)
    out, _ = story.communicate(timeout=60)
    assert story.returncode == 7
    assert [words[0] for words in asked(play)] == ["rebuild", "train"]
    assert "funnel" not in out


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_ends_its_command_first(
    play: Path, told: signal.Signals
) -> None:
    script = """
    import os, signal, sys, time
    def ended(*_):
        open("ended", "w").write("yes")
        sys.exit("interrupted, in one line")
    signal.signal(signal.SIGINT, ended)
    print("waiting", flush=True)
    signal.pause()
    """
    story = start(play, script)
    assert story.stdout is not None
    while story.stdout.readline().strip() != "waiting":
        assert story.poll() is None
    story.send_signal(told)
    _, err = story.communicate(timeout=60)
    assert story.returncode == 130
    assert (play / "ended").read_text() == "yes"
    assert err.strip() == "interrupted, in one line"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_demo_takes_its_command_along(play: Path) -> None:
    story = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.demo import __main__ as demo; demo._run(['wait'])"],
        cwd=play,
        env=os.environ | {"PYTHONPATH": str(stand_in(play))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert story.stdout is not None
    while not (line := story.stdout.readline()).startswith("child"):
        assert story.poll() is None
    child = int(line.split()[1])
    story.kill()
    # the child holds the other end of the pipe, which ends when the child does
    try:
        assert story.communicate(timeout=30)[0] == ""
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the command outlived the demo")


def test_a_command_whose_demo_is_gone_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-c", demo._TIED, "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"WEBTEXT_DEMO": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the demo ended\n")


def stand_in(play: Path) -> Path:
    """A `pipeline` whose program only waits; the demo is the real one."""
    package = play / "pipeline"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'pipeline')!r})")
    (package / "__main__.py").write_text(
        "import os, signal\nprint('child', os.getpid(), flush=True)\nsignal.pause()\n"
    )
    for name in ("crawl", "dedup", "training"):
        (play / name).symlink_to(ROOT / name)
    return play


def test_a_missing_recipe_is_one_line_and_status_2(tmp_path: Path) -> None:
    story = start(tmp_path, OBEDIENT)
    _, err = story.communicate(timeout=60)
    assert story.returncode == 2
    assert err.strip().splitlines() == ["webtext demo: recipes/demo.toml: no such recipe"]


def test_a_file_in_the_way_is_one_line_and_status_1(play: Path) -> None:
    (play / "runs" / "demo" / "web").touch()
    story = start(play, OBEDIENT)
    _, err = story.communicate(timeout=60)
    assert story.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("webtext demo: ") and line.endswith("runs/demo/web: File exists")


def test_the_last_lines_are_a_dozen_and_say_the_numbers(tmp_path: Path) -> None:
    gathered: dict[str, Any] = facts.gather(made_run.make(tmp_path, links=80), None)
    gathered["laws"] = [{"verdict": "holds"}, {"verdict": "not checked"}]
    gathered["training"] = {
        **{"steps": 150, "tokens": 76_800, "first_loss": 10.86, "last_loss": 6.4},
        "evaluation": {"loss": 6.5, "perplexity": 665.14},
    }
    said = summary.lines(gathered, {"web": 1.5, "rebuild": 20.0}, None, 2_500_000_000, "r.html")
    assert len(said) == 12
    text = "\n".join(said)
    for part in (
        gathered["passport"]["root_hash"],
        "76,800 tokens, loss 10.86 -> 6.40",
        "loss 6.500, perplexity 665.1",
        "1 holds, 0 broken, 1 not checked",
        "web 1.5, rebuild 20.0; in all 22",
        "2.50 GB at most",
        "80 distinct links",
    ):
        assert part in text, part


def test_a_run_without_training_can_be_told(tmp_path: Path) -> None:
    gathered = facts.gather({}, None) | {"laws": []}
    assert any("not evaluated" in line for line in summary.lines(gathered, {}, 3.0, 0, "r.html"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_memory_of_a_child_is_seen() -> None:
    code = "held = b'x' * 200_000_000; print('held', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert memory._tree_bytes(os.getpid()) > 200_000_000
    child.communicate("\n")
    with memory.watched(os.getpid()) as peak:
        pass
    assert peak.bytes > 200_000_000, "the largest child, where nothing was seen"


def test_a_command_that_is_killed_has_the_status_of_a_shell(play: Path) -> None:
    story = start(play, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    story.communicate(timeout=60)
    assert story.returncode == 128 + signal.SIGKILL
