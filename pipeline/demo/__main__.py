"""`python -m pipeline.demo`: the whole story on the embedded web, told by the program's own
commands.

Builds the web and the dump, serves it on loopback, then runs each command as a user would. It stops
at the first that fails, with that command's exit code. A second run goes on where the first was.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline import cli
from pipeline import config as settings
from pipeline.config import Config
from pipeline.demo import dump, memory, summary
from pipeline.demo.answers import Site
from pipeline.demo.server import Served, serve
from pipeline.demo.site import build
from pipeline.failures import BadInput

RECIPE = "recipes/demo.toml"
HOSTS = "*.test"
SEED = 2019
PROMPT = "The module"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("rebuild", RECIPE),
    ("train", RECIPE),
    ("evaluate", RECIPE),
    ("audit", RECIPE),
    ("generate", RECIPE, PROMPT),
)
_END_S = 30.0
"""So long a command may take to end after Ctrl-C."""
# The command must not outlive the web it crawls: it would record that every host is dead.
_TIED = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "if str(os.getppid()) != os.environ.pop('WEBTEXT_DEMO'):\n"
    "    sys.exit('the demo ended')\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'pipeline', *sys.argv[1:]])"
)


class CommandFailed(Exception):
    """A command of the story ended with another status than 0; it has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def main() -> int:
    """Tell the story; the exit status of the first command that fails, else 0."""
    cli.hear()
    try:
        return _story()
    except BadInput as error:
        print(f"webtext demo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        message, status = cli.verdict(error)
        print(f"webtext demo: {message}", file=sys.stderr)
        return status
    except CommandFailed as failed:
        return failed.status
    except KeyboardInterrupt:
        print("webtext demo: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


def _story() -> int:
    config = settings.load(RECIPE)
    seconds: dict[str, float] = {}
    with _timed("web", seconds):
        site = build()
        lines = dump.write(site, Path(config.crawl.submissions[0]), SEED)
    print(f"an embedded web of {len(site.fates()):,} pages on {len(site.hosts)} hosts")
    print(f"a dump of {lines:,} submissions that links to it: {config.crawl.submissions[0]}")
    with memory.watched(os.getpid()) as peak, _served(site, config) as (served, words):
        print(f"served on {served.address}", flush=True)
        for command in COMMANDS:
            with _timed(command[0], seconds):
                _run([*command, *words])
    _tell(Path(config.root), seconds, peak.bytes)
    return 0


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


@contextmanager
def _served(site: Site, config: Config) -> Iterator[tuple[Served, list[str]]]:
    """The web on the recipe's port; on a free one, and a word that says so, if that is taken."""
    address = config.crawl.resolve.get(HOSTS)
    if address is None:
        raise BadInput(f'{RECIPE}: crawl.resolve."{HOSTS}" must name an address on this machine')
    with ExitStack() as stack:
        words: list[str] = []
        try:
            served = stack.enter_context(serve(site, int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            served = stack.enter_context(serve(site))
            words = [f'crawl.resolve."{HOSTS}"="{served.address}"']
        yield served, words


def _run(words: list[str]) -> None:
    """One command, its output passed through; ended with us, however we end."""
    print(f"\n$ webtext {' '.join(_quoted(word) for word in words)}", flush=True)
    with subprocess.Popen(
        [sys.executable, "-c", _TIED, *words],
        start_new_session=True,
        env=os.environ | {"WEBTEXT_DEMO": str(os.getpid())},
    ) as child:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            _end(child)
            raise CommandFailed(130) from None
    if status:
        raise CommandFailed(status if status > 0 else 128 - status)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Pass Ctrl-C on once; a command that takes too long, or a second Ctrl-C, is the end of it."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(_END_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(child.pid, signal.SIGKILL)


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word or '"' in word else word


def _tell(root: Path, seconds: Mapping[str, float], peak_bytes: int) -> None:
    facts = json.loads((root / "report.json").read_bytes())
    setup = os.environ.get("WEBTEXT_SETUP_SECONDS", "").strip()
    setup_s = float(setup) if setup else None
    page = root / "report.html"
    shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
    print()
    for line in summary.lines(facts, seconds, setup_s, peak_bytes, str(shown)):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
