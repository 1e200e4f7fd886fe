"""`webtext steer`: what the operator says while a crawl runs, written where it looks."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from crawl import status, steering
from crawl.steering import State, Steering
from pipeline import config as settings
from pipeline import crawling
from pipeline.config import Config
from pipeline.failures import BadInput

WORDS: dict[str, State] = {"pause": "pause", "go": "run", "stop": "stop"}
OF_THE_RECIPE = "recipe"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be changed."""

    state: State | None = None
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    max_bytes_per_s: str | None = None


def asked(
    words: Sequence[str],
    deny: tuple[str, ...],
    allow: tuple[str, ...],
    forget: tuple[str, ...],
    max_bytes_per_s: str | None,
) -> Asked:
    """The words of the command line. Raises BadInput."""
    if len(words) > 1 or not set(words) <= set(WORDS):
        raise BadInput(f"{' '.join(words)}: expected one of {', '.join(WORDS)}")
    state = WORDS[words[0]] if words else None
    return Asked(
        state=state, deny=deny, allow=allow, forget=forget, max_bytes_per_s=max_bytes_per_s
    )


def steered(config: Config, wanted: Asked) -> list[str]:
    """Writes what is wanted, if anything is; lines that say what holds now. Raises BadInput."""
    root = Path(config.root)
    path = root / steering.FILE
    said = steering.read(path)
    if wanted != Asked():
        said = changed(said, wanted)
        settings.check_writable(config)
        steering.write(path, said)
    now = status.total(root / "observations", time.time())
    return [*_lines(said, config), *_now(said, now)]


def changed(said: Steering, wanted: Asked) -> Steering:
    """What holds from now on. A pattern is on one list only: the one it was put on last. Raises
    BadInput for what is no pattern, and for one to be forgotten that nobody named."""
    for pattern in wanted.forget:
        if pattern not in (*said.deny, *said.allow):
            raise BadInput(f"--forget: {pattern!r} is on neither list")
    try:
        return msgspec.structs.replace(
            said,
            state=wanted.state or said.state,
            deny=_joined(said.deny, wanted.deny, (*wanted.allow, *wanted.forget)),
            allow=_joined(said.allow, wanted.allow, (*wanted.deny, *wanted.forget)),
            max_bytes_per_s=_bytes(wanted.max_bytes_per_s, said.max_bytes_per_s),
        )
    except ValueError as error:
        raise BadInput(f"--deny, --allow: {error}") from error


def _joined(
    before: tuple[str, ...], more: tuple[str, ...], without: tuple[str, ...]
) -> tuple[str, ...]:
    kept = (one for one in before if one not in without)
    return tuple(dict.fromkeys((*kept, *more)))


def _bytes(word: str | None, before: int | None) -> int | None:
    if word is None:
        return before
    if word == OF_THE_RECIPE:
        return None
    if not (word.isascii() and word.isdigit()) or int(word) >= 1 << 63:
        raise BadInput(f"--max-bytes-per-s: {word!r} is no number of bytes, nor `{OF_THE_RECIPE}`")
    return int(word)


def _lines(said: Steering, config: Config) -> list[str]:
    bound = said.max_bytes_per_s
    if bound is None:
        bound = config.crawl.max_bytes_per_s
    return [
        f"state  {said.state}",
        f"deny   {', '.join(said.deny) or 'nobody'}",
        f"allow  {', '.join(said.allow) or 'everybody'}",
        f"bytes  {f'{bound:,} a second for each worker' if bound else 'without a bound'}",
    ]


def _now(said: Steering, now: status.Status | None) -> list[str]:
    if now:
        return [crawling.line(now), *([now.complaint] if now.complaint else [])]
    told = "nobody crawls here now"
    if said.state == "stop":
        told += ": the next `webtext rebuild` takes the stop back and begins"
    return [told]
