"""The articles of the embedded web, collected once per process from a child that does the risky
imports.

Rule: the child sees a fixed environment (hash seed, locale, width), so every process on one machine
collects the same bytes.
"""

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MOST_CRASHES = 5
"""So many modules may crash the child before something else must be wrong."""
_TIME_S = 120


@dataclass(frozen=True, slots=True)
class Article:
    """One real text: `kind` is module, class, topic, readme or licence; `html` a fragment, not a
    page."""

    kind: str
    key: str
    title: str
    html: str


@functools.cache
def collect() -> tuple[Article, ...]:
    """Every article of this installation, in a fixed order. A module that crashes its reader is
    passed over."""
    skipped: tuple[str, ...] = ()
    for _ in range(MOST_CRASHES + 1):
        ended = _read(skipped)
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.endswith("}")]
        if ended.returncode == 0:
            return tuple(Article(**line) for line in lines if "at" not in line)
        at = [line["at"] for line in lines if "at" in line]
        if not at or at[-1] in skipped:
            break
        skipped += (at[-1],)
    lost = ", ".join(skipped) or "nothing"
    raise RuntimeError(
        "the embedded web's texts cannot be collected: `python -m pipeline.demo.sources` ended "
        f"with {ended.returncode} (passed over: {lost}): {ended.stderr[-400:]}"
    )


def _read(skipped: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    kept = ("PATH", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    fixed = {
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        # Not this process's path: Ray lengthens it, by distributions of its own.
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, "-m", "pipeline.demo.sources", *skipped],
        env={key: os.environ[key] for key in kept if key in os.environ} | fixed,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=_TIME_S,
        check=False,
    )


# What an editor changes between two editions of a page: small words that leave the sense alone.
_OTHER_WORDS = ("also", "usually", "often", "then", "still", "mostly", "here", "again", "simply")
_WORD = re.compile(r"(<[^>]*>)|([A-Za-z]{3,})")


def edition(article: Article, every: int, notice: str) -> Article:
    """The same article as edited later: one word in `every` exchanged, a notice put under it;
    markup stays as it is."""
    seen = 0

    def exchange(found: re.Match[str]) -> str:
        nonlocal seen
        if found[1]:
            return found[1]
        seen += 1
        return _OTHER_WORDS[(seen // every) % len(_OTHER_WORDS)] if seen % every == 0 else found[2]

    html = _WORD.sub(exchange, article.html) + f"\n<p>{notice}</p>"
    return Article(article.kind, f"{article.key} ({every})", f"{article.title}, revised", html)
