"""Why what was read is no link to follow: every reason by count and share, and what of the dumps
could not be read.

Rule: counts come from the manifests; a dataset that is not made yet is `None`.
"""

from collections.abc import Mapping
from typing import Any

from crawl.schema import LeftOut, LinkOutcome
from pipeline.manifest import Manifest

FAULTS = 20
"""Shown; the manifest holds more."""


def left_out(made: Mapping[str, Manifest]) -> dict[str, Any] | None:
    """Reasons for lines of the dumps that are no submission and for links that are not followed.

    Of each: {of: what there was, reasons: [{reason, count, share}], the commonest first}.
    """
    found: dict[str, Any] = {"submissions": None, "links": None}
    if "submissions" in made:
        read = made["submissions"]
        found["submissions"] = _shares(read.rows + sum(read.left_out.values()), read.left_out)
    if "links" in made:
        outcomes = dict(made["links"].counts.get("outcome", {}))
        outcomes.pop(LinkOutcome.KEPT, None)
        found["links"] = _shares(made["links"].rows, outcomes)
    return found if any(found.values()) else None


def _shares(of: int, counts: Mapping[str, int]) -> dict[str, Any]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    reasons = [{"reason": name, "count": n, "share": n / of} for name, n in ordered if n]
    return {"of": of, "reasons": reasons}


def faults(made: Mapping[str, Manifest]) -> dict[str, Any] | None:
    """How much of the dumps could not be read, and where the first of it stands."""
    if "submissions" not in made:
        return None
    read = made["submissions"]
    malformed, truncated = (
        read.left_out.get(reason, 0) for reason in (LeftOut.MALFORMED, LeftOut.TRUNCATED)
    )
    return {
        "count": malformed + truncated,
        "malformed": malformed,
        "truncated": truncated,
        "first": read.faults[:FAULTS],
    }
