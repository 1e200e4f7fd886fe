"""The commands. Each is a recipe, `key=value` words, few flags, and one function of the program.

Exit codes: 0 done; 1 a law is broken or work failed; 2 the input is wrong (one line, no traceback);
130 interrupted. Ray, torch and DeepSpeed are imported inside the commands that need them.
"""

import errno
import functools
import importlib.metadata
import json
import logging
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

import crawl.schema
import training.config
from crawl.limits import Short
from crawl.service import Stopped
from pipeline import config as settings
from pipeline import launch, make, trainings
from pipeline import status as statuses
from pipeline.failures import BadInput, TaskFailed, WorkFailed

BAD_INPUT = (BadInput, crawl.schema.BadInput, training.config.BadInput)

TRAINING_EXTRA = ("torch", "deepspeed")

Command = Callable[..., None]


def recipe(command: Command) -> Command:
    """The arguments every command begins with."""
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("recipe", type=click.Path())(command)


def machines(command: Command) -> Command:
    """Where work runs."""

    @functools.wraps(command)
    def placed(*, address: str | None, local: bool, **rest: Any) -> None:
        if local and address is not None:
            raise click.UsageError("--local works without Ray: leave out --address, or --local")
        command(address=address, local=local, **rest)

    address = click.option("--address", help="A Ray cluster to join; default: embedded.")
    local = click.option("--local", is_flag=True, help="Without Ray, in this process.")
    return address(local(placed))


as_json = click.option("--json", "as_json", is_flag=True, help="For a program to read.")


@click.group(
    invoke_without_command=True,
    epilog="Every command takes a recipe and key=value words: webtext COMMAND --help.",
)
@click.version_option(importlib.metadata.version("webtext"), prog_name="webtext")
@click.option("-v", "--verbose", is_flag=True, help="Show the whole of a failure.")
@click.pass_context
def webtext(context: click.Context, verbose: bool) -> None:
    """Rebuild a WebText-like corpus, train GPT-2 on it, audit the data."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(2)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


@webtext.command()
@recipe
@machines
@click.option("--until", metavar="NAME", help="Stop after this dataset.")
@click.option("--remake", metavar="NAME", help="Make a new generation of this dataset.")
def rebuild(
    recipe: str,
    overrides: tuple[str, ...],
    address: str | None,
    local: bool,
    until: str | None,
    remake: str | None,
) -> None:
    """Make what is missing, from dumps to tokens.

    Example: webtext rebuild recipes/demo.toml crawl.min_karma=5 --until corpus
    """
    config = settings.load(recipe, overrides)
    settings.check_writable(config)
    for line in make.make(config, address=address, local=local, until=until, remake=remake):
        click.echo(line)


@webtext.command()
@recipe
@as_json
def status(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Each dataset: whole, partial, stale (and why) or missing; each training: its step, loss,
    time left and checkpoints.

    Example: webtext status recipes/demo.toml
    """
    read = settings.load(recipe, overrides)
    rows = statuses.rows(read)
    more = [*statuses.crawl(read), *trainings.lines(trainings.found(read.root))]
    shown = "\n".join([statuses.table(rows), *more])
    click.echo(json.dumps(rows, indent=1) if as_json else shown)


@webtext.command()
@click.argument("recipe", type=click.Path())
@click.argument("words", nargs=-1, metavar="[pause|go|stop] [KEY=VALUE]...")
@click.option("--deny", multiple=True, metavar="PATTERN", help="Ask it no more. Repeatable.")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Ask these alone. Repeatable.")
@click.option("--forget", multiple=True, metavar="PATTERN", help="Take it off both lists.")
@click.option("--max-bytes-per-s", metavar="N", help="0: no bound; `recipe`: as the recipe says.")
def steer(
    recipe: str,
    words: tuple[str, ...],
    deny: tuple[str, ...],
    allow: tuple[str, ...],
    forget: tuple[str, ...],
    max_bytes_per_s: str | None,
) -> None:
    """Pause, stop or go on with a crawl; whom to ask. Without a word: what holds.

    A PATTERN is a host (example.com), all at and below it (*.example.com), or how addresses begin
    (https://example.com/a/).

    Example: webtext steer recipes/webtext.toml pause --deny '*.example.com'
    """
    from pipeline import steer as steers

    said = [word for word in words if "=" not in word]
    read = settings.load(recipe, [word for word in words if "=" in word])
    asked = steers.asked(said, deny, allow, forget, max_bytes_per_s)
    click.echo("\n".join(steers.steered(read, asked)))


@webtext.command()
@recipe
@as_json
def audit(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the laws; write report.html and report.json; exit 1 if a law is broken.

    Example: webtext audit recipes/demo.toml
    """
    from pipeline import audit as laws

    config = settings.load(recipe, overrides)
    settings.check_writable(config)
    found = laws.audit(config)
    click.echo(json.dumps(found.plain(), indent=1) if as_json else found.text())
    sys.exit(0 if found.holds else 1)


@webtext.command()
@click.argument("recipe", type=click.Path())
@click.argument("url")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@as_json
def why(recipe: str, url: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """One link's whole story, from its Reddit posts to its tokens or the rule that dropped it.

    Example: webtext why recipes/demo.toml http://example.com/page
    """
    from pipeline import why as stories

    if not settings.is_text(url):
        raise BadInput("URL: is not UTF-8")
    story = stories.story(settings.load(recipe, overrides), url)
    click.echo(json.dumps(story, indent=1) if as_json else stories.text(story))


@webtext.command()
@recipe
@machines
def train(recipe: str, overrides: tuple[str, ...], address: str | None, local: bool) -> None:
    """Train GPT-2 on the run's tokens with DeepSpeed ZeRO; resumes by itself.

    Example: webtext train recipes/demo.toml training.steps=100
    """
    config = settings.load(recipe, overrides)
    settings.check_writable(config)
    click.echo(launch.train(config, address=address, local=local))


@webtext.command()
@recipe
@as_json
def evaluate(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Loss and perplexity of the newest checkpoint on the held-out split.

    Example: webtext evaluate recipes/demo.toml
    """
    found = launch.evaluate(settings.load(recipe, overrides))
    lines = [f"{name}: {_shown(value)}" for name, value in found.items()]
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines))


@webtext.command()
@click.argument("recipe", type=click.Path())
@click.argument("prompt")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=1,
    show_default=True,
    help="Another seed, another sample.",
)
def generate(recipe: str, prompt: str, overrides: tuple[str, ...], seed: int) -> None:
    """Text after a prompt, sampled from the newest checkpoint.

    Example: webtext generate recipes/demo.toml "The module" training.sample.temperature=0.7
    """
    if not settings.is_text(prompt):
        raise BadInput("PROMPT: is not UTF-8")
    click.echo(launch.generate(settings.load(recipe, overrides), prompt, seed))


@webtext.command()
@click.argument("recipe", type=click.Path())
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def export(recipe: str, directory: Path, overrides: tuple[str, ...]) -> None:
    """The newest checkpoint's weights as a Hugging Face GPT-2 folder.

    Example: webtext export recipes/demo.toml runs/gpt2
    """
    click.echo(launch.export(settings.load(recipe, overrides), directory))


@webtext.command()
@recipe
def config(recipe: str, overrides: tuple[str, ...]) -> None:
    """Print the resolved tree of settings, as JSON.

    Example: webtext config recipes/demo.toml training.steps=100
    """
    click.echo(json.dumps(settings.tree(settings.load(recipe, overrides)), indent=1))


def _shown(value: Any) -> str:
    if value is None:
        return "too large to say"
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"


def hear() -> None:
    """Take a request to end and a terminal that was closed as Ctrl-C, but what was told to outlive
    its terminal (nohup) does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def run() -> None:
    """The program: the command, and every end it can come to in one line."""
    hear()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the terminal has no letter for is spelt out
            stream.reconfigure(errors="backslashreplace")
    try:
        webtext.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; the same command goes on where it was", 130)
    except Exception as error:
        message, code = verdict(error)
        if message is None:
            raise
        logging.getLogger(__name__).info("%s", error, exc_info=error)
        fail(message, code)


def verdict(error: BaseException) -> tuple[str | None, int]:
    """The line and exit code for what was raised; no line: a fault of ours, to be seen whole."""
    cause = error.cause if isinstance(error, TaskFailed) else error
    if isinstance(cause, BAD_INPUT):
        return str(cause), 2
    if isinstance(cause, (Stopped, Short)):
        return str(cause), 1
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
        text = "raise the limit (ulimit -n), or lower crawl.connections or crawl.shards"
        return f"too many files are open: {text}; then run the same command again", 1
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        place = cause.filename2 or cause.filename  # of a copy, the one on this machine
        where = f" ({place})" if place else ""
        return f"the disk is full{where}; free some space, then run the same command again", 1
    if isinstance(error, WorkFailed):
        return str(error), 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    if isinstance(error, ImportError) and error.name in TRAINING_EXTRA:
        return f"{error.name} is not installed: pip install 'webtext[training]'", 1
    if isinstance(error, ImportError):
        return f"the installation is damaged: {error}; run `make setup` or install again", 1
    return None, 1


def fail(message: str, code: int) -> None:
    """One line, one exit code."""
    click.echo(f"webtext: {' '.join(message.split())}", err=True)
    sys.exit(code)
