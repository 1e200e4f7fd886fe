"""`webtext rebuild` crawls and `webtext steer` steers it, both as a user runs them."""

import asyncio
import errno
import io
import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

from crawl import observations, service, status, steering
from crawl.limits import Short
from crawl.steering import Steering
from pipeline import cli, steer
from pipeline.failures import BadInput, TaskFailed
from tests import web

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0
PAGES = 40
ANSWERED = 6


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serve() as running:
        for host in ("a", "b"):
            for n in range(PAGES):
                running.page(f"{host}.web.test", f"/{n}", f"<p>page {n}")
        yield running


@pytest.fixture
def gate(site: web.Site) -> Iterator[threading.Event]:
    """Pages are answered when it is open, and until some were asked for: no crawl is over before
    somebody spoke."""
    opened = threading.Event()

    def gated(page: bytes) -> web.Handler:
        async def answer(writer: asyncio.StreamWriter) -> None:
            while len(site.log) > ANSWERED and not opened.is_set():
                await asyncio.sleep(0.01)
            writer.write(page)

        return answer

    for place, page in list(site.routes.items()):
        assert isinstance(page, bytes)
        site.route(*place, gated(page))
    yield opened
    opened.set()


@pytest.fixture
def recipe(site: web.Site, tmp_path: Path) -> Path:
    links = [f"http://{host}.web.test/{n}" for host in ("a", "b") for n in range(PAGES)]
    (tmp_path / "links.txt").write_text("\n".join(links))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'root = "{tmp_path}/run"\n[crawl]\nshards = 2\nsubmissions = ["{tmp_path}/links.txt"]\n'
        'user_agent = "webtext-test/1.0 (+http://localhost/)"\n'
        "min_delay_s = 0.1\nlatency_factor = 0.0\ntdm_file = false\nmin_free_gb = 0.0\n"
        "timeout_s = 300.0\nread_timeout_s = 300.0\nmin_bytes_per_s = 0\n"
        f'[crawl.resolve]\n"*.web.test" = "127.0.0.1:{site.port}"\n'
    )
    return path


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *more]


class Done(NamedTuple):
    """The end of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(*more: str) -> Done:
    """A command, in this process."""
    out, error = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(error),
        patch.object(sys, "argv", ["webtext", *more]),
        patch.object(cli, "hear"),
    ):
        try:
            cli.run()
            code = 0
        except SystemExit as left:
            assert isinstance(left.code, int)
            code = left.code
    return Done(code, out.getvalue(), error.getvalue())


def rebuild(recipe: Path, *more: str) -> Done:
    return run("rebuild", str(recipe), "--until", "pages", *(more or ("--local",)))


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


@pytest.fixture
def begun(recipe: Path, site: web.Site) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A rebuild under way, which has asked for some pages; none is left."""
    left = []

    def begin(*more: str, asked: int = ANSWERED + 1) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words("rebuild", str(recipe), "--until", "pages", *(more or ("--local",))),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        left.append(process)
        until(lambda: len(site.log) >= asked, process)
        return process

    yield begin
    for process in left:
        process.kill()
        process.communicate()


def told(recipe: Path) -> status.Status | None:
    return status.total(recipe.parent / "run" / "observations", time.time())


def pages_asked(site: web.Site) -> list[str]:
    return sorted(f"{hit.host}{hit.path}" for hit in site.log if hit.path != "/robots.txt")


ALL = sorted(f"{host}.web.test/{n}" for host in ("a", "b") for n in range(PAGES))
WHERE = [("--local",), pytest.param(("crawl.shards=3",), marks=pytest.mark.slow)]


@pytest.mark.parametrize("where", WHERE, ids=["local", "ray"])
def test_a_stop_is_one_line_and_the_same_command_goes_on(
    recipe: Path,
    site: web.Site,
    gate: threading.Event,
    begun: Callable[..., subprocess.Popen[str]],
    where: tuple[str],
):
    process = begun(*where)
    assert run("steer", str(recipe), "stop").stdout.startswith("state  stop\n")
    until(lambda: (now := told(recipe)) and now.state == "stop", process)
    gate.set()
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "webtext: stopped as asked; the same command goes on"
    assert "Traceback" not in said
    ledger = recipe.parent / "run" / "observations"
    assert not list(ledger.glob("*.open")) and not list(ledger.glob("*.claim"))
    had = observations.read(ledger)["final_url"].to_pylist()
    assert sorted(address.removeprefix("http://") for address in had) == pages_asked(site)
    again = rebuild(recipe, *where)
    assert again.returncode == 0, again.stderr
    assert pages_asked(site) == ALL
    assert run("steer", str(recipe)).stdout.splitlines()[0] == "state  run"


def test_what_politeness_takes_is_told_before_and_compared_after(recipe: Path, site: web.Site):
    done = rebuild(recipe)
    lines = [line for line in done.stderr.splitlines() if line.startswith("crawl: ")]
    assert len(lines) == 2
    assert lines[0].startswith("crawl: 80 pages of 2 hosts, at least 4.0 s by politeness: ")
    assert lines[0].endswith(".web.test, 40 pages x 0.1 s")
    found = re.fullmatch(
        r"crawl: ok 80; took (.*) s, (\d+\.\d\d) times the politeness bound", lines[1]
    )
    assert found and float(found[2]) >= 0.97  # what comes before the first delay is not waited for
    assert not [line for line in rebuild(recipe).stderr.splitlines() if "crawl" in line]


def test_a_pause_is_told_and_seen_and_the_crawl_goes_on(
    recipe: Path, site: web.Site, gate: threading.Event, begun: Callable[..., subprocess.Popen[str]]
):
    process = begun()
    assert "state  pause" in run("steer", str(recipe), "pause").stdout
    until(lambda: (now := told(recipe)) and now.state == "pause", process)
    gate.set()
    until(lambda: (now := told(recipe)) and not now.in_flight, process)
    asked = len(site.log)
    (crawl,) = [row["crawl"] for row in json.loads(run("status", str(recipe), "--json").stdout)
                if row["crawl"]]  # fmt: skip
    assert crawl["state"] == "pause" and crawl["left"] > 0 and crawl["outcomes"]["ok"] > 0
    assert ", paused; " in run("status", str(recipe)).stdout.splitlines()[-1]
    assert len(site.log) == asked
    assert run("steer", str(recipe), "go").returncode == 0
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "the crawl is paused: `webtext steer RECIPE go` lets it go on" in said
    assert "the crawl goes on" in said.splitlines()
    assert pages_asked(site) == ALL
    assert [row["crawl"] for row in json.loads(run("status", str(recipe), "--json").stdout)] == (
        [None] * 10
    )


def test_a_pause_stands_when_a_rebuild_begins_and_is_told(
    recipe: Path, site: web.Site, begun: Callable[..., subprocess.Popen[str]]
):
    assert run("steer", str(recipe), "pause").stdout.splitlines()[-1] == "nobody crawls here now"
    process = begun(asked=0)
    until(lambda: (now := told(recipe)) and now.left, process)
    assert site.log == []
    run("steer", str(recipe), "go")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0 and "crawl.toml: the crawl is paused" in said
    assert pages_asked(site) == ALL


def outcomes(recipe: Path) -> dict[str, int]:
    (path,) = recipe.parent.glob("run/pages/*/manifest.json")
    found: dict[str, int] = json.loads(path.read_text())["counts"]["outcome"]
    return found


def test_whom_the_operator_denied_is_asked_by_a_rebuild_that_retries_them(
    recipe: Path, site: web.Site
):
    assert "deny   b.web.test" in run("steer", str(recipe), "--deny", "b.web.test").stdout
    assert rebuild(recipe).returncode == 0
    assert outcomes(recipe) == {"ok": PAGES, "denied": PAGES}
    assert {hit.host for hit in site.log} == {"a.web.test"}
    run("steer", str(recipe), "--forget", "b.web.test")
    assert rebuild(recipe).returncode == 0
    assert len(site.log) == PAGES + 1  # what was observed stands, until it is to be asked again
    again = rebuild(recipe, "--local", 'crawl.retry=["denied"]')
    assert "pages is made anew: crawl.retry" in again.stdout
    assert f"crawl: {PAGES} pages of 1 hosts" in again.stderr
    assert f"crawl: ok {PAGES}; took " in again.stderr  # of this crawl alone
    assert pages_asked(site) == ALL


def test_only_the_chosen_outcomes_are_asked_again(recipe: Path, site: web.Site):
    site.route("a.web.test", "/1", web.response(503))
    site.route("b.web.test", "/2", web.response(200, b"{}", {"Content-Type": "application/json"}))
    assert rebuild(recipe, "--local", "crawl.retries=0", "crawl.back_off_s=0.1").returncode == 0
    before = pages_asked(site)
    site.page("a.web.test", "/1", "<p>is back")
    site.page("b.web.test", "/2", "<p>would be a page now")
    again = rebuild(recipe, "--local", 'crawl.retry=["http_error"]')
    assert again.returncode == 0, again.stderr
    assert pages_asked(site) == sorted([*before, "a.web.test/1"])
    stands = rebuild(recipe, "--local", 'crawl.retry=["http_error"]')
    assert stands.returncode == 0 and len(pages_asked(site)) == len(before) + 1


@pytest.mark.parametrize("content", ['state = "halt"', "deny = 1", "state ="])
def test_a_bad_file_at_the_start_ends_with_2_and_one_line(
    recipe: Path, site: web.Site, content: str
):
    path = recipe.parent / "run" / steering.FILE
    path.parent.mkdir()
    path.write_text(content)
    for done in (rebuild(recipe), run("steer", str(recipe), "go")):
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"webtext: {path}: ")
    assert site.log == [] and path.read_text() == content


def test_a_bad_file_while_it_runs_is_told_once_and_changes_nothing(
    recipe: Path,
    site: web.Site,
    gate: threading.Event,
    begun: Callable[..., subprocess.Popen[str]],
):
    process = begun()
    path = recipe.parent / "run" / steering.FILE
    path.write_text('state = "halt"')
    until(lambda: (now := told(recipe)) and now.complaint, process)
    gate.set()
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    (line,) = [line for line in said.splitlines() if str(path) in line]
    assert "halt" in line and line.endswith("what it said before holds")
    assert pages_asked(site) == ALL


def test_files_that_cannot_be_had_end_with_2_and_the_key(recipe: Path, site: web.Site):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = rebuild(recipe, "--local", "crawl.connections=100000000")
    if hard == resource.RLIM_INFINITY:
        pytest.skip("as many files as one likes can be open here")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("webtext: crawl.connections: 100000000 need ") and str(hard) in line
    assert site.log == []


def test_a_nearly_full_disk_ends_with_1_and_the_next_run_begins(recipe: Path, site: web.Site):
    done = rebuild(recipe, "--local", "crawl.min_free_gb=1e9")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "less than crawl.min_free_gb = 1e+09 GB are free" in line
    assert line.endswith("then run the same command again")
    assert site.log == []
    assert rebuild(recipe).returncode == 0


def test_archives_alone_ask_for_no_room(recipe: Path):
    done = rebuild(recipe, "--local", "crawl.live=false", "crawl.min_free_gb=1e9")
    assert done.returncode == 0, done.stderr


ASKED = [
    ((), {"deny": ("a.org",)}, Steering(deny=("x.org", "a.org"), allow=("y.org",))),
    ((), {"deny": ("y.org",)}, Steering(deny=("x.org", "y.org"))),
    ((), {"allow": ("x.org",)}, Steering(allow=("y.org", "x.org"))),
    ((), {"forget": ("x.org", "y.org")}, Steering()),
    (("pause",), {}, Steering(state="pause", deny=("x.org",), allow=("y.org",))),
    ((), {"max_bytes_per_s": "5"},
     Steering(deny=("x.org",), allow=("y.org",), max_bytes_per_s=5)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "options", "holds"), ASKED)
def test_what_is_asked_for_is_changed_and_nothing_else(said, options, holds: Steering):
    before = Steering(deny=("x.org",), allow=("y.org",))
    nothing = {"deny": (), "allow": (), "forget": (), "max_bytes_per_s": None}
    wanted = steer.asked(said, **(nothing | options))
    assert steer.changed(before, wanted) == holds


def test_the_recipe_s_bound_can_hold_again():
    wanted = steer.asked((), (), (), (), "recipe")
    assert steer.changed(Steering(max_bytes_per_s=5), wanted) == Steering()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("halt",), "halt: expected one of pause, go, stop"),
        (("pause", "go"), "pause go: expected one of"),
        (("--deny", "A.org"), "--deny, --allow: 'A.org' is not a host"),
        (("--allow", "a.org/x"), "--deny, --allow: 'a.org/x' is not a host"),
        (("--forget", "a.org"), "--forget: 'a.org' is on neither list"),
        (("--max-bytes-per-s", "-1"), "--max-bytes-per-s: '-1' is no number"),
        (("--max-bytes-per-s", "1e6"), "--max-bytes-per-s: '1e6' is no number"),
        (("crawl.min_karm=1",), "crawl: unknown key min_karm"),
        (("root=/proc/x", "stop"), "root: /proc/x: cannot be written"),
    ],
)
def test_what_cannot_be_meant_ends_with_2_and_writes_nothing(recipe: Path, more, named: str):
    done = run("steer", str(recipe), *more)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("webtext: ") and named in line
    assert not (recipe.parent / "run").exists()


def test_without_a_word_it_says_what_holds_and_writes_nothing(recipe: Path):
    done = run("steer", str(recipe), "crawl.max_bytes_per_s=1000000")
    assert done.stdout.splitlines() == [
        "state  run",
        "deny   nobody",
        "allow  everybody",
        "bytes  1,000,000 a second for each worker",
        "nobody crawls here now",
    ]
    assert not (recipe.parent / "run").exists()


def test_every_end_of_a_crawl_is_one_line():
    stopped = TaskFailed("pages", "before/1", 3, service.Stopped("stopped as asked; and so on"))
    assert cli.verdict(stopped) == ("stopped as asked; and so on", 1)
    short = TaskFailed("pages", "before/1", 3, Short("/data: less than 2 GB"))
    assert cli.verdict(short) == cli.verdict(Short("/data: less than 2 GB"))
    assert cli.verdict(short) == ("/data: less than 2 GB", 1)
    files = TaskFailed("pages", "before/1", 3, OSError(errno.EMFILE, "Too many open files"))
    message, code = cli.verdict(files)
    assert code == 1 and message and "ulimit -n" in message
    with pytest.raises(BadInput):
        steer.asked(["x"], (), (), (), None)
