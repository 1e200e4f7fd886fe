"""The contract with the other packages: names of columns, lists of outcomes."""

import subprocess
import sys

import pyarrow as pa
import pytest

from crawl import schema


@pytest.mark.parametrize(
    ("made", "columns"),
    [
        (schema.SUBMISSIONS, "link_id url_key fetch_url post_id crosspost_of score day subreddit"),
        (
            schema.LINKS,
            "link_id url_key fetch_url host karma submissions subreddits first_seen outcome",
        ),
        (
            schema.PAGES,
            "link_id url outcome source status final_url content_type bytes digest fetched_at "
            "elapsed_s warc_file warc_offset warc_length ai_signals days_from_post",
        ),
        (schema.DOCUMENTS, "document_id url outcome text title author date extractor"),
    ],
)
def test_columns_others_rely_on(made: pa.Schema, columns: str) -> None:
    assert made.names == columns.split()
    assert made.field(0).type == pa.binary(16)


def test_volatile_columns_exist() -> None:
    for dataset, columns in schema.VOLATILE.items():
        assert set(columns) <= set(getattr(schema, dataset.upper()).names)


def test_good_outcomes() -> None:
    assert "kept" in schema.OUTCOMES["links"]
    assert "ok" in schema.OUTCOMES["pages"] and "ok" in schema.OUTCOMES["documents"]


def test_the_package_needs_neither_engine_nor_trainer() -> None:
    names = "submissions links pages documents signals archives observations crawler extractor"
    code = (
        f"import sys\nfrom crawl import {', '.join(names.split())}\n"
        "print([m for m in ('ray', 'torch', 'deepspeed', 'dedup', 'training', 'pipeline') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
