"""How far each dataset of a recipe is, the crawl while it runs, and the trainings: `webtext
status`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from crawl import status as crawled
from pipeline import crawling, state, trainings
from pipeline.config import Config
from pipeline.plan import plan
from pipeline.state import State
from pipeline.store import size


def rows(config: Config) -> list[dict[str, Any]]:
    """One row for each dataset of the recipe; that of `pages` says how a crawl stands, that of
    `tokens` how the trainings do."""
    root = Path(config.root)
    if config.training.tokens and not config.crawl.submissions:
        found = [_given(config.training.tokens)]
    else:
        found = rows_of(state.inspect(plan(config), root, config.crawl.shards))
    now = crawled.total(root / "observations", time.time())
    beside = {
        "crawl": {"pages": crawling.plain(now)},
        "training": {"tokens": msgspec.to_builtins(trainings.found(config.root))},
    }
    return [row | {key: of.get(row["dataset"]) for key, of in beside.items()} for row in found]


def crawl(config: Config) -> list[str]:
    """How a crawl stands that runs now, by lines; none where none runs."""
    now = crawled.total(Path(config.root) / "observations", time.time())
    if now is None:
        return []
    return [crawling.line(now), *([now.complaint] if now.complaint else [])]


def rows_of(states: Mapping[str, State]) -> list[dict[str, Any]]:
    """One row for each of these states."""
    return [_row(name, entry) for name, entry in states.items()]


def _row(name: str, entry: State) -> dict[str, Any]:
    whole = entry.dataset.manifest if entry.status == "whole" else None
    return {
        "dataset": name,
        "status": entry.status,
        "done": entry.done,
        "tasks": entry.tasks,
        "rows": whole.rows if whole else None,
        "bytes": whole.bytes if whole else None,
        "seconds": whole.seconds if whole else None,
        "fingerprint": entry.dataset.fingerprint,
        "reasons": list(entry.reasons) if entry.status != "whole" else [],
    }


def _given(tokens: str) -> dict[str, Any]:
    """Where a recipe only trains, there is one dataset, made elsewhere."""
    unknown = dict.fromkeys(("done", "tasks", "rows", "bytes", "seconds", "fingerprint"))
    return {"dataset": "tokens", "status": "given", **unknown, "reasons": [tokens]}


def table(found: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [f"{'dataset':12}{'state':>16}{'rows':>12}{'bytes':>10}"]
    for row in found:
        shown = row["status"]
        if shown == "partial":
            shown = f"{row['done']} of {row['tasks']}"
        count = f"{row['rows']:,}" if row["rows"] is not None else "-"
        taken = size(row["bytes"]) if row["bytes"] is not None else "-"
        line = f"{row['dataset']:12}{shown:>16}{count:>12}{taken:>10}"
        lines.append(line + (f"  {', '.join(row['reasons'])}" if row["reasons"] else ""))
    return "\n".join(lines)
