"""A run's datasets as duckdb views, and the few questions that every section of the report asks.

Rule: every answer is in a fixed order and holds plain values (ids as hexadecimal text), so that the
same run gives the same report.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

from pipeline.store import Dataset

BINS = 40
PER_DECADE = 8
"""Bins of a logarithmic histogram between 1 and 10."""

FETCHED = 1 << 16


class Tables:
    """A connection with one view for each dataset that is there."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, names: frozenset[str]) -> None:
        self._connection = connection
        self._names = names

    def have(self, *names: str) -> bool:
        """Whether all of these datasets are made."""
        return self._names.issuperset(names)

    def rows(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """The query's rows by column name; it must say in which order."""
        found = self._connection.execute(query, values or [])
        columns = [column[0] for column in found.description or []]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]

    def one(self, query: str, values: list[Any] | None = None) -> dict[str, Any]:
        """The only row."""
        return self.rows(query, values)[0]

    def each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The query's rows, a few at a time: for more of them than the report shows."""
        found = self._connection.cursor().execute(query)
        while some := found.fetchmany(FETCHED):
            yield from some

    def histogram(self, table: str, column: str) -> dict[str, list[float]] | None:
        """Counts in equal bins from the least to the greatest value; None without any value."""
        range_ = self.one(f"select min({column}) low, max({column}) high from {table}")
        if range_["low"] is None:
            return None
        low, high = float(range_["low"]), float(range_["high"])
        width = (high - low) / BINS or 1.0
        counts = self._counted(f"floor(({column}::double - {low}) / {width})", table, column)
        edges = [low + width * place for place in range(BINS + 1)]
        filled = [0.0] * BINS
        for place, count in counts.items():
            filled[min(max(place, 0), BINS - 1)] += count
        return {"edges": edges, "counts": filled}

    def log_histogram(self, table: str, column: str) -> dict[str, list[float]] | None:
        """The same in bins that grow by a constant factor; values below 1 count as 1."""
        place = f"floor(log10(greatest({column}, 1)::double) * {PER_DECADE})"
        counts = self._counted(place, table, column)
        if not counts:
            return None
        first, last = min(counts), max(counts)
        return {
            "edges": [10 ** (place / PER_DECADE) for place in range(first, last + 2)],
            "counts": [float(counts.get(place, 0)) for place in range(first, last + 1)],
        }

    def _counted(self, place: str, table: str, column: str) -> dict[int, int]:
        query = (
            f"select {place} place, count(*) n from {table} where {column} is not null group by 1"
        )
        found = self.rows(f"{query} order by 1")
        return {int(row["place"]): row["n"] for row in found if math.isfinite(row["place"])}


@contextmanager
def opened(run: Mapping[str, Dataset]) -> Iterator[Tables]:
    """The datasets as views of their own names, for as long as the block runs."""
    connection = duckdb.connect(":memory:")
    try:
        names = set()
        for name, dataset in run.items():
            files = [pattern.replace("'", "''") for pattern in dataset.patterns()]
            if files:
                listed = ", ".join(f"'{file}'" for file in files)
                connection.execute(
                    f"create view {name} as select * from read_parquet([{listed}], "
                    "hive_partitioning = false)"  # a folder named a=1 is no column
                )
                names.add(name)
        yield Tables(connection, frozenset(names))
    finally:
        connection.close()
