"""Measurements of texts."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawl import signals
from crawl.schema import DOCUMENTS, SIGNALS

ENGLISH = "It was the best of times, it was the worst of times, and we had everything before us. "
GERMAN = "Es war die beste der Zeiten und es war die schlimmste der Zeiten, und wir hatten alles. "


def document(n: int, text: str | None, outcome: str = "ok") -> dict[str, Any]:
    return {"document_id": bytes([n]) * 16, "url": "u", "outcome": outcome, "text": text}


def test_one_row_for_each_document_that_has_text() -> None:
    rows = [document(1, ENGLISH), document(2, None, "empty"), document(3, GERMAN)]
    (made,) = signals.measure([pa.RecordBatch.from_pylist(rows, DOCUMENTS)])
    assert made.schema == SIGNALS
    assert made.column("document_id").to_pylist() == [bytes([n]) * 16 for n in (1, 3)]
    assert made.column("language").to_pylist() == ["en", "de"]


def test_counts_and_shares() -> None:
    found = signals.signals("- one two\n- one two\n\nthe 42 #end...")
    assert (found["characters"], found["words"], found["lines"]) == (35, 9, 3)
    assert found["duplicate_line_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["bullet_line_share"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["ellipsis_line_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["digit_share"] == pytest.approx(2 / 26, abs=1e-4)
    assert found["symbol_share"] == pytest.approx(1 / 26, abs=1e-4)
    assert found["stop_word_share"] == pytest.approx(1 / 6, abs=1e-4)
    assert found["mean_word_length"] == pytest.approx(26 / 9, abs=1e-4)
    assert found["alphabetic_share"] == pytest.approx(18 / 26, abs=1e-4)


def test_capitals_do_not_hide_a_stop_word() -> None:
    assert signals.signals("The cat AND the dog")["stop_word_share"] == 0.6


def test_repetition_is_seen() -> None:
    assert signals.signals("buy it now " * 50)["top_3gram_share"] > 0.9
    assert signals.signals(ENGLISH)["top_3gram_share"] < 0.3
    assert signals.signals("every word here differs")["top_3gram_share"] == 0


@given(st.text(max_size=400))
def test_any_text_is_measured_within_bounds(text: str) -> None:
    found = signals.signals(text)
    for name, value in found.items():
        if name.endswith("_share") or name == "language_score":
            assert 0 <= value <= 1, name
    assert signals.signals(text) == found
