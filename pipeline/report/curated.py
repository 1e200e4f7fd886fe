"""Facts of the second half: what documents are like, which are twins, and what the policy
dropped."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.tables import Tables

LARGEST_CLUSTERS = 20
URLS_SHOWN = 5
KEPT_SAMPLES, DROPPED_SAMPLES = 10, 3
SAMPLE_CHARACTERS = 700


def languages(tables: Tables) -> list[dict[str, Any]] | None:
    """Documents by language, the commonest twenty."""
    if not tables.have("signals"):
        return None
    return tables.rows(
        "select language, count(*) documents, sum(words)::bigint words from signals"
        " group by 1 order by 2 desc, 1 limit 20"
    )


def signals(tables: Tables, settings: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Each number measured of a document: its histogram, and the policy's cut lines on it."""
    if not tables.have("signals"):
        return None
    columns = tables.rows("describe select * from signals")
    numbers = [one["column_name"] for one in columns if _is_number(one["column_type"])]
    return [
        {
            "signal": name,
            "log": name in ("characters", "words", "lines"),
            "histogram": tables.log_histogram("signals", name)
            if name in ("characters", "words", "lines")
            else tables.histogram("signals", name),
            "least": settings.get(f"corpus.min_{name}"),
            "most": settings.get(f"corpus.max_{name}"),
        }
        for name in numbers
    ]


def _is_number(kind: str) -> bool:
    return kind in ("BIGINT", "INTEGER", "FLOAT", "DOUBLE")


def duplicates(tables: Tables, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Similar pairs by Jaccard, clusters by size, the largest clusters with their addresses."""
    if not tables.have("pairs", "duplicates", "documents"):
        return None
    clusters = "(select cluster_id, count(*) size from duplicates group by 1)"
    return {
        "threshold": settings.get("dedup.threshold"),
        **tables.one("select count(*) pairs from pairs"),
        **tables.one(
            "select count(*) filter (keeper_id is not null) dropped,"
            " count(distinct cluster_id) clusters from duplicates"
        ),
        "jaccard": tables.histogram("pairs", "jaccard"),
        "sizes": tables.rows(
            f"select size, count(*) clusters from {clusters} group by 1 order by 1"
        ),
        "largest": tables.rows(
            f"""select hex(c.cluster_id) as cluster, c.size,
                       count(*) filter (d.keeper_id is not null) dropped,
                       list(documents.url order by documents.url)[1:{URLS_SHOWN}] urls
                from (select * from {clusters} order by size desc, cluster_id
                      limit {LARGEST_CLUSTERS}) c
                join duplicates d on d.cluster_id = c.cluster_id
                join documents on documents.document_id = d.document_id
                group by c.cluster_id, c.size order by c.size desc, c.cluster_id"""
        ),
    }


def rules(tables: Tables) -> list[dict[str, Any]] | None:
    """What each rule would drop, alone and together with others."""
    if not tables.have("corpus"):
        return None
    return tables.rows(
        "select rule, count(*) documents, count(*) filter (rules_broken = 1) alone,"
        " count(*) filter (rules_broken > 1) with_others from"
        " (select unnest(rules) as rule, len(rules) rules_broken from corpus)"
        " group by 1 order by 2 desc, 1"
    )


def tokens(tables: Tables) -> dict[str, Any] | None:
    """Documents and tokens of each split, and how long documents are in tokens."""
    if not tables.have("tokens"):
        return None
    return {
        "splits": tables.rows(
            "select split, count(*) documents, sum(length)::bigint tokens from tokens"
            " group by 1 order by 1"
        ),
        "lengths": tables.log_histogram("tokens", "length"),
    }


def samples(tables: Tables, seed: int) -> dict[str, list[dict[str, Any]]] | None:
    """Documents to read, by the rule that dropped them; those kept under `kept`.

    Chosen by a hash of id and seed: the same for the same run.
    """
    if not tables.have("corpus", "documents"):
        return None
    found = tables.rows(
        f"""select coalesce(chosen.rule, 'kept') as rule, chosen.url,
                   coalesce(documents.title, '') title, len(documents.text) characters,
                   left(documents.text, {SAMPLE_CHARACTERS}) as head
            from (select *, row_number() over (partition by rule
                         order by md5(hex(document_id) || '{int(seed)}'), document_id) place
                  from corpus) chosen
            join documents on documents.document_id = chosen.document_id
            where place <= case when chosen.rule is null then {KEPT_SAMPLES}
                                else {DROPPED_SAMPLES} end
            order by chosen.rule is not null, chosen.rule, place"""
    )
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        grouped.setdefault(row.pop("rule"), []).append(row)
    return grouped
