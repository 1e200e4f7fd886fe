"""`webtext why`: one link's whole story, read from the range of ids it lies in."""

from pathlib import Path
from typing import Any

from crawl import canonical
from crawl import url as urls
from pipeline import state
from pipeline.config import Config
from pipeline.failures import BadInput
from pipeline.store import Dataset, range_of

SHOWN_CHARACTERS = 200
"""Of a text; the whole of it is in the dataset."""
HIDDEN = frozenset({"minima", "tokens"})


def story(config: Config, url: str) -> dict[str, Any]:
    """What every dataset says of this URL, in the order of the plan."""
    fetch_url = urls.fetch_url(url)
    if fetch_url is None:
        raise BadInput(f"{url}: not an http(s) URL")
    key = canonical.url_key(fetch_url)
    identifier = canonical.link_id(key)
    run = state.datasets(Path(config.root))
    if not run:
        raise BadInput(f"{config.root}: there is no run yet; run `webtext rebuild` first")
    found = {name: rows_about(dataset, identifier) for name, dataset in run.items()}
    return {
        "url": url,
        "url_key": key,
        "link_id": identifier.hex(),
        "datasets": {name: rows for name, rows in found.items() if rows},
        "verdict": verdict({name: rows[0] for name, rows in found.items() if rows}),
    }


def rows_about(dataset: Dataset, identifier: bytes) -> list[dict[str, Any]]:
    """The rows of a dataset that carry this id in any of their id columns."""
    by_id = dataset.name != "pairs"
    shard = range_of(identifier, dataset.shards)
    batches = dataset.read(shard) if by_id else dataset.all()
    columns = ("a", "b") if not by_id else ("link_id", "document_id")
    return [
        {name: _shown(value) for name, value in row.items() if name not in HIDDEN}
        for batch in batches
        for row in batch.to_pylist()
        if any(row.get(column) == identifier for column in columns)
    ]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:SHOWN_CHARACTERS]}… ({len(value):,} characters)"
    return value if isinstance(value, int | float | list | None) else str(value)


def verdict(rows: dict[str, dict[str, Any]]) -> str:
    """In one sentence where the story ends."""
    if "links" not in rows:
        return "no submission of the dumps links to it"
    for name, good in (("links", "kept"), ("pages", "ok"), ("documents", "ok")):
        if name in rows and rows[name]["outcome"] != good:
            return f"ends in {name}: {rows[name]['outcome']}"
    if "corpus" in rows and rows["corpus"]["verdict"] == "dropped":
        rules = ", ".join(rows["corpus"]["rules"])
        twin = rows.get("duplicates", {}).get("keeper_id")
        return f"dropped from the corpus by {rules}" + (
            f"; its kept twin is {twin}" if twin else ""
        )
    if "tokens" in rows:
        row = rows["tokens"]
        return f"in the corpus, {row['length']:,} tokens of the {row['split']} split"
    return "on its way: the rebuild has not come further yet"


def text(found: dict[str, Any]) -> str:
    """The story for a person."""
    lines = [f"{found['url']}", f"  key {found['url_key']}", f"  id  {found['link_id']}"]
    for name, rows in found["datasets"].items():
        for row in rows:
            lines.append(f"{name}:")
            lines += [f"  {column}: {value}" for column, value in row.items() if value is not None]
    return "\n".join([*lines, found["verdict"]])
