"""The dozen lines at the demo's end. Rule: a function of the report's facts and of what was
measured."""

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def lines(
    facts: Facts, seconds: Mapping[str, float], setup_s: float | None, peak_bytes: int, page: str
) -> list[str]:
    """What the run came to. `seconds` are those of each part of the demo, in order."""
    return [f"{name:12}{said}" for name, said in _said(facts, seconds, setup_s, peak_bytes, page)]


def _said(
    facts: Facts, seconds: Mapping[str, float], setup_s: float | None, peak_bytes: int, page: str
) -> list[tuple[str, str]]:
    install = f"installation {setup_s:.0f}, then " if setup_s is not None else ""
    parts = ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items())
    stages = facts["passport"]["datasets"]
    return [
        ("funnel", " > ".join(f"{step['count']:,} {step['step']}" for step in facts["funnel"])),
        ("crawl", _outcomes(facts)),
        ("dropped", _rules(facts)),
        ("tokens", _tokens(facts)),
        ("training", _training(facts)),
        ("held out", _held_out(facts)),
        ("laws", _laws(facts)),
        ("stages", ", ".join(f"{one['dataset']} {one['seconds']:.1f} s" for one in stages)),
        ("seconds", f"{install}{parts}; in all {sum(seconds.values()):.0f}"),
        ("memory", f"{peak_bytes / 1e9:.2f} GB at most, all processes together"),
        ("root hash", facts["passport"]["root_hash"]),
        ("report", page),
    ]


def _outcomes(facts: Facts) -> str:
    found: dict[str, int] = {}
    for row in (facts["fetches"] or {"outcomes": []})["outcomes"]:
        found[row["outcome"]] = found.get(row["outcome"], 0) + row["pages"]
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())


def _rules(facts: Facts) -> str:
    rows = facts["rules"] or []
    return ", ".join(f"{row['documents']:,} {row['rule'].replace('_', ' ')}" for row in rows)


def _tokens(facts: Facts) -> str:
    splits = (facts["tokens"] or {"splits": []})["splits"]
    return ", ".join(
        f"{one['tokens']:,} in {one['documents']:,} documents ({one['split']})" for one in splits
    )


def _training(facts: Facts) -> str:
    found = facts["training"]
    if not found:
        return "none"
    return (
        f"{found['steps']:,} steps, {found['tokens']:,} tokens, "
        f"loss {found['first_loss']:.2f} -> {found['last_loss']:.2f} (mean of the last ten)"
    )


def _held_out(facts: Facts) -> str:
    found = (facts["training"] or {}).get("evaluation")
    if not found:
        return "not evaluated"
    told = found["perplexity"]
    perplexity = "too large to say" if told is None else f"{told:.1f}"
    return f"loss {found['loss']:.3f}, perplexity {perplexity}"


def _laws(facts: Facts) -> str:
    verdicts = [law["verdict"] for law in facts["laws"]]
    kinds = ("holds", "broken", "not checked")
    return ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds)
