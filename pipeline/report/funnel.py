"""The funnel: from lines of the dumps to tokens, with every loss and its reason.

Rule: between two steps nothing vanishes; what a step has less than the one above stands in its
losses.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.manifest import Manifest


def steps(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """The steps that are made so far, in order: {step, count, lost: {reason: count}}."""
    found: list[dict[str, Any]] = []
    for name, make in _STEPS:
        if name in made:
            found += make(made)
    return found


def _step(name: str, count: int, lost: Mapping[str, int]) -> dict[str, Any]:
    by_size = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
    return {"step": name, "count": count, "lost": {reason: n for reason, n in by_size if n}}


def _submissions(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    rows, left_out = made["submissions"].rows, made["submissions"].left_out
    return [
        _step("lines of the dumps", rows + sum(left_out.values()), {}),
        _step("submissions with a link", rows, left_out),
    ]


def _links(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    links = made["links"]
    outcomes = dict(links.counts.get("outcome", {}))
    kept = outcomes.pop("kept", 0)
    repeats = made["submissions"].rows - links.rows if "submissions" in made else 0
    return [
        _step("distinct links", links.rows, {"the same link again": repeats}),
        _step("links to follow", kept, outcomes),
    ]


def _pages(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    outcomes = dict(made["pages"].counts.get("outcome", {}))
    return [_step("pages", outcomes.pop("ok", 0), outcomes)]


def _documents(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    outcomes = dict(made["documents"].counts.get("outcome", {}))
    outcomes.pop("no_page", None)  # counted among the pages' losses
    return [_step("documents with text", outcomes.pop("ok", 0), outcomes)]


def _corpus(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    counts = made["corpus"].counts
    kept = counts.get("verdict", {}).get("kept", 0)
    return [_step("documents kept", kept, dict(counts.get("rule", {})))]


def _tokens(made: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    return [_step("documents in tokens", made["tokens"].rows, {})]


_STEPS = (
    ("submissions", _submissions),
    ("links", _links),
    ("pages", _pages),
    ("documents", _documents),
    ("corpus", _corpus),
    ("tokens", _tokens),
)
