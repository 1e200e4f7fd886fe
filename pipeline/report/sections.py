"""The sections of the report on the run as a whole and on its second half, from documents to the
model: each a function of its facts that returns HTML.

Charts are put into `figures` under a name; the HTML holds `place_of(name)` where one will stand.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.report import charts
from pipeline.report.elements import Figures, Rows, charted, link, percent, table, text, tiles
from pipeline.store import size


def summary(facts: Mapping[str, Any], laws: Rows) -> str:
    """The figures that matter, in one row."""
    counts = {step["step"]: step["count"] for step in facts["funnel"]}
    splits = (facts["tokens"] or {}).get("splits", [])
    trained = facts["training"]
    broken = sum(law["verdict"] == "broken" for law in laws)
    holding = sum(law["verdict"] == "holds" for law in laws)
    verdict = f'<span class="bad">{broken} broken</span>' if broken else f"{holding} hold"
    loss = f"{trained['first_loss']:.2f} → {trained['last_loss']:.2f}" if trained else "–"
    return tiles(
        [
            ("links to follow", text(counts.get("links to follow"))),
            ("pages fetched", text(counts.get("pages"))),
            ("documents kept", text(counts.get("documents kept"))),
            ("tokens", text(sum(one["tokens"] for one in splits) if splits else None)),
            ("training loss", loss),
            ("laws", verdict),
        ]
    )


def passport(found: Mapping[str, Any], figures: Figures) -> str:
    """What to cite: hashes, sizes, settings, versions."""
    work = {one["dataset"]: one["seconds"] for one in found["datasets"]}
    chart = charts.bars(list(work), {"seconds": list(work.values())}, "seconds of work, all tasks")
    drawn = charted(figures, "seconds", chart) if work else ""
    rows = [
        [
            text(one["dataset"]),
            f"<code>{text(one['fingerprint'])}</code>",
            text(one["rows"]),
            size(one["bytes"]),
            text(one["files"]),
            text(round(one["seconds"], 1)),
        ]
        for one in found["datasets"]
    ]
    made = table(["dataset", "fingerprint", "rows", "bytes", "files", "seconds of work"], rows, 2)
    settings = [
        [f"<code>{text(key)}</code>", _setting(value)] for key, value in found["settings"].items()
    ]
    versions = [[text(key), text(value)] for key, value in found["versions"].items()]
    return (
        f"{made}{drawn}<h3>Settings that shape the content</h3>"
        f"{table(['setting', 'value'], settings, 2)}"
        f"<h3>Versions</h3>{table(['part', 'version'], versions, 2)}"
    )


def _setting(value: Any) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    if isinstance(shown, int | float):
        shown = json.dumps(shown)  # to be cited and set again: neither rounded nor grouped
    return f"<code>{text(shown if shown != '' else None)}</code>"


def funnel(found: Rows, figures: Figures) -> str:
    """Every step with what is left, and what was lost on the way to it, by reason."""
    del figures
    first = found[0]["count"]
    items = []
    for place, step in enumerate(found):
        before = found[place - 1]["count"] if place else step["count"]
        lost = "".join(
            f"<span><b>−{text(count)}</b> {text(reason.replace('_', ' '))}</span> "
            for reason, count in step["lost"].items()
        )
        width = 100 * step["count"] / first if first else 0
        items.append(
            f"<li><span>{text(step['step'])}</span>"
            f'<span class="bar"><i style="width:{width:.2f}%"></i></span>'
            f'<span class="count">{text(step["count"])}</span>'
            f'<span class="share">{percent(step["count"], before)}</span>'
            + (f'<span class="lost">{lost}</span>' if lost else "")
            + "</li>"
        )
    return (
        "<p>What was read, what is left after each step, and what was left out for which reason. "
        "The share is of the step above.</p>"
        f'<ol class="funnel">{"".join(items)}</ol>'
    )


def languages(found: Rows, figures: Figures) -> str:
    """Languages of all documents, before the policy."""
    del figures
    total = sum(row["documents"] for row in found)
    rows = [
        [
            text(row["language"]),
            text(row["documents"]),
            percent(row["documents"], total),
            text(row["words"]),
        ]
        for row in found
    ]
    return "<p>Of every document with text.</p>" + table(
        ["language", "documents", "share", "words"], rows
    )


def signals(found: Rows, figures: Figures) -> str:
    """One small histogram for each number; red lines are where the policy cuts."""
    drawn = []
    for one in found:
        if one["histogram"]:
            label = one["signal"].replace("_", " ")
            cuts = (one["least"], one["most"])
            chart = charts.histogram(one["histogram"], label, log=one["log"], cuts=cuts, small=True)
            drawn.append(charted(figures, f"signal-{one['signal']}", chart))
    return (
        "<p>What was measured of each document. A red line is a limit of the policy.</p>"
        f'<div class="grid">{"".join(drawn)}</div>'
    )


def duplicates(found: Mapping[str, Any], figures: Figures) -> str:
    """Twins: how alike, in how large groups, and the largest groups."""
    html = tiles(
        [
            ("verified pairs", text(found["pairs"])),
            ("clusters", text(found["clusters"])),
            ("dropped as duplicates", text(found["dropped"])),
            ("threshold (Jaccard)", text(found["threshold"])),
        ]
    )
    drawn = ""
    if found["jaccard"]:
        chart = charts.histogram(found["jaccard"], "exact Jaccard", cuts=(found["threshold"],))
        drawn += charted(figures, "jaccard", chart, "Pairs by similarity")
    if found["sizes"]:
        labels = [str(row["size"]) for row in found["sizes"]]
        values = {"clusters": [row["clusters"] for row in found["sizes"]]}
        chart = charts.bars(labels, values, "documents in the cluster")
        drawn += charted(figures, "clusters", chart, "Clusters by size")
    rows = [
        ["<br>".join(map(link, one["urls"])) + ("<br>…" if one["size"] > len(one["urls"]) else ""),
         text(one["size"]), text(one["dropped"])]
        for one in found["largest"]
    ]  # fmt: skip
    return f'{html}<div class="two">{drawn}</div><h3>Largest clusters</h3>' + table(
        ["addresses", "documents", "dropped"], rows
    )


def rules(found: Rows, figures: Figures) -> str:
    """What each rule of the policy drops, alone and with others."""
    del figures
    rows = [
        [
            text(row["rule"].replace("_", " ")),
            text(row["documents"]),
            text(row["alone"]),
            text(row["with_others"]),
        ]
        for row in found
    ]
    return (
        "<p>All rules are applied to every document. A rule that drops little alone could go.</p>"
        + table(["rule", "would drop", "alone", "with others"], rows)
    )


def tokens(found: Mapping[str, Any], figures: Figures) -> str:
    """What the trainer reads."""
    rows = [
        [text(one["split"]), text(one["documents"]), text(one["tokens"]),
         text(round(one["tokens"] / max(one["documents"], 1)))]
        for one in found["splits"]
    ]  # fmt: skip
    html = table(["split", "documents", "tokens", "tokens a document"], rows)
    if found["lengths"]:
        chart = charts.histogram(found["lengths"], "tokens of a document", log=True)
        html += charted(figures, "token-lengths", chart)
    return html


def training(found: Mapping[str, Any], figures: Figures) -> str:
    """The loss curve, and what the model makes of held-out text."""
    curve = found["curve"]
    series = {"training": ([line["step"] for line in curve], [line["loss"] for line in curve])}
    held_out = [line for line in curve if line.get("validation_loss") is not None]
    if held_out:
        series["held out"] = (
            [line["step"] for line in held_out],
            [line["validation_loss"] for line in held_out],
        )
    html = tiles(
        [
            ("steps", text(found["steps"])),
            ("tokens seen", text(found["tokens"])),
            ("first loss", f"{found['first_loss']:.3f}"),
            ("last loss, mean of ten steps", f"{found['last_loss']:.3f}"),
            ("seconds", text(round(found["seconds"], 1))),
        ]
    )
    html += charted(figures, "loss", charts.lines(series, "step"), "Loss")
    if found["evaluation"]:
        rows = [
            [text(key.replace("_", " ")), text(value)] for key, value in found["evaluation"].items()
        ]
        html += f"<h3>Evaluation</h3>{table(['', 'value'], rows)}"
    return html


def samples(found: Mapping[str, Rows], figures: Figures) -> str:
    """Texts to read: kept ones, and some that each rule dropped."""
    del figures
    parts = ["<p>Chosen by hash, not by hand. People should read them.</p>"]
    for rule, rows in found.items():
        title = "Kept" if rule == "kept" else f"Dropped: {rule.replace('_', ' ')}"
        parts.append(f"<h3>{text(title)}</h3>")
        parts += [
            f"<details><summary>{text(row['title'] or row['url'])} "
            f'<span class="soft">{text(row["characters"])} characters</span></summary>'
            f"{link(row['url'])}<pre>{text(row['head'])}</pre></details>"
            for row in rows
        ]
    return "\n".join(parts)
