"""What a user meets at the command line: one line and the right exit code, never a traceback."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.failures import GangFailed, Held, TaskFailed

ROOT = Path(__file__).parents[2]


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "urls.txt").write_text("http://a-page.com/\n")
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'root = "{tmp_path}/run"\n[crawl]\nlive = false\nshards = 2\n'
        f'submissions = ["{tmp_path}/urls.txt"]\n'
    )
    return path


def refused(words: tuple[str, ...], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("webtext: ") and message in line
    assert done.stdout == ""


Ended = tuple[int, str]
"""Exit code and what stands on the standard error."""


@pytest.fixture
def end(monkeypatch, capsys) -> Callable[..., Ended]:
    """The end of a command that is run in this process."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def ended(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["webtext", *words])
        capsys.readouterr()
        try:
            cli.run()
        except SystemExit as left:
            assert isinstance(left.code, int)
            return left.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return ended


@pytest.mark.parametrize("command", ["rebuild", "status", "train", "audit", "evaluate", "config"])
def test_a_wrong_key_ends_with_2_and_one_line(recipe: Path, command: str):
    refused((command, str(recipe), "crawl.min_karm=1"), "crawl: unknown key min_karm")


@pytest.mark.parametrize(
    "words, message",
    [
        (("crawl.min_karma=x",), "crawl.min_karma: Expected int, got str"),
        (("crawl.sample=2",), "crawl.sample: Expected float <= 1"),
        (("crawl.submissions=['gone.zst']",), "crawl.submissions: no such file"),
        (("crawl.submissions=[]",), "crawl.submissions: name at least one"),
        (("crawl.archives=['gone*.warc.gz']",), "crawl.archives: no such file"),
        (("--until", ""), "'': no such dataset"),
        (("--remake", ""), "'': no such dataset"),
        (("--until", "everything"), "'everything': no such dataset; there are submissions, links"),
        (("--remake", "observations"), "'observations': no such dataset"),
        (("--sideways",), "No such option"),
    ],
)
def test_a_rebuild_that_cannot_be_meant_ends_with_2(recipe: Path, words, message: str):
    refused(("rebuild", str(recipe), *words), message)


@pytest.mark.parametrize(
    "name, content",
    [
        ("RS_2012-01.zst", b"this is no zstandard frame at all"),
        ("RS_2012-01.xz", b"\xfd7zXZ\x00 cut off"),
        ("RS_2012-01.gz", b"\x1f\x8b\x08\x00\x00"),
        ("RS_2012-01.bz2", b"BZh9 and nothing more"),
    ],
)
def test_an_unreadable_dump_ends_with_2_and_its_name(recipe: Path, name: str, content: bytes):
    path = recipe.parent / name
    path.write_bytes(content)
    refused(("rebuild", str(recipe), f"crawl.submissions=['{path}']", "--local"), str(path))


def test_a_missing_recipe_and_a_missing_argument_end_with_2(tmp_path: Path):
    refused(("status", str(tmp_path / "none.toml")), "no such recipe")
    refused(("status",), "Missing argument")
    refused(("remake",), "No such command")


def test_an_audit_of_a_part_says_what_it_cannot_check(end, recipe: Path):
    for until in ("submissions", "documents"):
        assert end("rebuild", str(recipe), "--local", "--until", until)[0] == 0
        assert end("audit", str(recipe)) == (0, "")
        told = json.loads((recipe.parent / "run/report.json").read_bytes())
        verdicts = {law["number"]: law["verdict"] for law in told["laws"]}
        assert verdicts.pop("3") == "holds" and set(verdicts.values()) == {"not checked"}
        assert (recipe.parent / "run/report.html").exists()


def test_a_run_without_a_link_is_audited(end, recipe: Path):
    dump = recipe.parent / "RS_self"
    dump.write_text('{"id": "a", "is_self": true, "score": 5, "created_utc": 1}\n')
    words = (str(recipe), f"crawl.submissions=['{dump}']")
    assert end("rebuild", *words, "--local")[0] == 0
    assert end("audit", *words) == (0, "")
    told = json.loads((recipe.parent / "run/report.json").read_bytes())
    assert told["hosts"]["ten_hold_of_links"] == 0


@pytest.mark.parametrize("command", ["train", "audit", "evaluate"])
def test_a_command_that_comes_too_early_says_what_comes_first(recipe: Path, command: str):
    refused((command, str(recipe)), "run `webtext rebuild` first")


def test_tokens_fewer_than_a_window_are_refused_before_anything_starts(recipe: Path):
    assert run("rebuild", str(recipe), "--local").returncode == 0
    refused(("train", str(recipe)), "0 tokens are fewer than one window")
    refused(("evaluate", str(recipe)), "train first")
    refused(("generate", str(recipe), "The"), "train first")


def test_a_link_that_no_archive_has_is_told_why(recipe: Path):
    assert run("rebuild", str(recipe), "--local").returncode == 0
    story = run("why", str(recipe), "https://www.a-page.com/#top")
    assert story.returncode == 0
    assert story.stdout.splitlines()[-1] == "ends in pages: not_archived"
    refused(("why", str(recipe), "not a url"), "not an http(s) URL")


def test_a_broken_law_ends_the_audit_with_1(recipe: Path):
    assert run("rebuild", str(recipe), "--local").returncode == 0
    assert run("audit", str(recipe)).returncode == 0
    for path in recipe.parent.glob("run/links/*/*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    broken = run("audit", str(recipe), "--json")
    assert broken.returncode == 1
    found = json.loads(broken.stdout)
    assert not found["holds"] and found["page"] is None


def test_what_is_asked_for_as_json_is_json(recipe: Path):
    assert run("rebuild", str(recipe), "--local").returncode == 0
    rows = json.loads(run("status", str(recipe), "--json").stdout)
    assert {row["status"] for row in rows} == {"whole"} and len(rows) == 10
    assert json.loads(run("why", str(recipe), "http://a-page.com/", "--json").stdout)


def test_no_ray_at_the_address_ends_with_1(recipe: Path):
    done = run("rebuild", str(recipe), "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "webtext: no Ray answers at 127.0.0.1:1"


def test_version_and_help():
    assert run("--version").stdout.startswith("webtext, version ")
    assert "rebuild" in run("--help").stdout


def test_a_damaged_installation_is_one_line(tmp_path: Path):
    """A module of ours that cannot be imported, as after an installation cut short."""
    (tmp_path / "click.py").write_text("raise ImportError('half a file', name='click')")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "status", "x.toml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("webtext: the installation is damaged: click cannot be imported")
    assert len(done.stderr.splitlines()) == 1


def test_an_absent_extra_is_one_line(recipe: Path, tmp_path: Path):
    """Training without torch names what to install; the data half does not miss it."""
    (tmp_path / "absent").mkdir()
    for name in ("torch", "deepspeed"):
        module = tmp_path / "absent" / f"{name}.py"
        module.write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')")
    words = [sys.executable, "-m", "pipeline"]
    environment = {"PYTHONPATH": str(tmp_path / "absent"), "PATH": "/usr/bin:/bin"}
    for command, code in (("rebuild", 0), ("status", 0), ("audit", 0), ("generate", 1)):
        more = {"rebuild": ["--local"], "generate": ["The"]}.get(command, [])
        done = subprocess.run(
            [*words, command, str(recipe), *more],
            capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    assert done.stderr == "webtext: torch is not installed: pip install 'webtext[training]'\n"


def test_ctrl_c_while_the_program_is_loaded_is_one_line(tmp_path: Path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "status", "x.toml"],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "webtext: interrupted; the same command goes on where it was\n"


def test_no_command_at_all_shows_the_help_as_it_is(end):
    code, said = end()
    assert code == 2
    assert len(said.splitlines()) > 10 and "  rebuild " in said


@pytest.mark.parametrize("command", ["rebuild", "train"])
def test_an_address_without_ray_is_refused(end, recipe: Path, command: str):
    code, said = end(command, str(recipe), "--local", "--address", "127.0.0.1:1")
    assert code == 2
    assert said.startswith("webtext: --local works without Ray") and said.count("\n") == 1
    assert not (recipe.parent / "run").exists()


@pytest.mark.parametrize("command", ["rebuild", "train", "audit"])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc here")
def test_a_root_that_cannot_be_written_ends_with_2(end, recipe: Path, command: str):
    code, said = end(command, str(recipe), "root=/proc/x")
    assert (code, said) == (
        2,
        "webtext: root: /proc/x: cannot be written: No such file or directory\n",
    )


def test_a_root_that_leads_nowhere_ends_with_2(end, recipe: Path):
    (recipe.parent / "away").symlink_to(recipe.parent / "nowhere")
    code, said = end("rebuild", str(recipe), f"root={recipe.parent}/away", "--local")
    assert code == 2 and said.endswith("/away is not a folder\n") and said.count("\n") == 1


def test_a_file_that_is_no_dump_ends_with_2_and_its_name(end, recipe: Path):
    path = recipe.parent / "settings.json"
    path.write_text('{"a": 1}')
    code, said = end("rebuild", str(recipe), f"crawl.submissions=['{path}']", "--local")
    assert code == 2
    assert said.splitlines()[-1].startswith(f"webtext: {path}: is no dump")


@pytest.mark.parametrize("command, name", [("generate", b"PROMPT"), ("why", b"URL")])
def test_bytes_that_are_no_text_end_with_2_and_one_line(recipe: Path, command: str, name: bytes):
    words = [os.fsencode(word) for word in (command, str(recipe), "http://a-page.com/\udcff")]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], capture_output=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (2, b"webtext: " + name + b": is not UTF-8\n")


def test_what_a_terminal_has_no_letter_for_is_spelt_out(recipe: Path):
    assert run("rebuild", str(recipe), "--local").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "why", str(recipe), "http://no-such.com/?\u2026"],
        capture_output=True, text=True, cwd=ROOT, check=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert "\\u2026" in done.stdout


HEARS = """
import os, signal, sys
from pipeline import cli
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
cli.hear()
try:
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    print("goes on")
except KeyboardInterrupt:
    print("ends")
"""


@pytest.mark.parametrize(
    "before, told, end",
    [
        ("SIG_DFL", "SIGHUP", "ends"),
        ("SIG_IGN", "SIGHUP", "goes on"),  # nohup
        ("SIG_DFL", "SIGTERM", "ends"),
    ],
)
def test_a_closed_terminal_is_ctrl_c_but_for_nohup(before: str, told: str, end: str):
    done = subprocess.run(
        [sys.executable, "-c", HEARS, before, told], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == f"{end}\n", done.stderr


def test_what_the_killed_left_goes_and_what_an_audit_is_writing_stays(recipe: Path):
    root = recipe.parent / "run"
    root.mkdir()
    left, written = root / ".report.html.1-a.tmp", root / ".report.html.2-b.tmp"
    for path in (left, written):
        path.touch()
    os.utime(left, (0, 0))
    assert run("rebuild", str(recipe), "--local").returncode == 0
    assert not left.exists() and written.exists()


def test_a_story_from_damaged_files_ends_with_1_and_their_name(end, recipe: Path):
    assert end("rebuild", str(recipe), "--local")[0] == 0
    links = sorted((recipe.parent / "run" / "links").glob("*/0000?.parquet"))
    for path in links:
        path.write_bytes(b"xx")
    code, said = end("why", str(recipe), "http://a-page.com/")
    assert code == 1 and said.count("\n") == 1
    assert any(f"{path}: is damaged" in said for path in links)
    for path in links:
        path.unlink()
    code, said = end("why", str(recipe), "http://a-page.com/")
    assert code == 1 and any(f"{path}: is gone" in said for path in links)


def test_every_failure_has_its_code():
    full = TaskFailed("pages", "main", 3, OSError(28, "No space left on device", "/data/x"))
    assert cli.verdict(full) == (
        "the disk is full (/data/x); free some space, then run the same command again",
        1,
    )
    assert cli.verdict(OSError(5, "Input/output error")) == ("Input/output error", 1)
    assert cli.verdict(OSError("odd")) == ("odd", 1)
    quota = OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x")
    assert cli.verdict(quota) == cli.verdict(full)
    assert cli.verdict(Held("held by another")) == ("held by another", 1)
    assert cli.verdict(GangFailed("rank 0: lost")) == ("rank 0: lost", 1)
    assert cli.verdict(KeyError("a fault of ours"))[0] is None


def test_the_flags_are_these_and_no_more():
    """New knobs go into the tree of settings."""
    flags = {
        option
        for command in (cli.webtext, *cli.webtext.commands.values())
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert flags == {
        "--address", "--local", "--until", "--remake", "--json", "--seed", "--verbose", "--version",
        # What is said to a crawl that runs, which no setting can be.
        "--deny", "--allow", "--forget", "--max-bytes-per-s",
    }  # fmt: skip


def test_a_remake_that_failed_is_gone_on_with_and_one_that_is_done_is_not(recipe: Path):
    def remakes() -> dict[str, int]:
        return json.loads((recipe.parent / "run/run.json").read_text())["remakes"]

    assert run("rebuild", str(recipe), "--local").returncode == 0
    again = ("rebuild", str(recipe), "--remake", "links")
    for _ in range(2):
        failed = run(*again, "--address", "127.0.0.1:1")
        assert (failed.returncode, failed.stderr) == (1, "webtext: no Ray answers at 127.0.0.1:1\n")
    assert remakes() == {"links": 1}
    done = run(
        "rebuild", str(recipe), "--remake", "submissions", "--until", "submissions", "--local"
    )
    assert done.returncode == 0
    done = run(*again, "--local")
    assert "links is made anew" in done.stdout and remakes() == {"links": 1, "submissions": 1}
    assert "links is made anew" not in run("rebuild", str(recipe), "--local").stdout
    assert "links is made anew" in run(*again, "--local").stdout
    assert remakes() == {"links": 2, "submissions": 1}
