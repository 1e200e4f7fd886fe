"""Settings of dedup that would not do what they say are refused."""

import msgspec
import pytest

from dedup.config import DedupConfig


@pytest.mark.parametrize("jaccard, found", [(0.5, 0.132), (0.7, 0.787), (0.8, 0.986), (0.9, 1.0)])
def test_the_curve_of_18_bands_of_7(jaccard: float, found: float):
    assert DedupConfig().found_share(jaccard) == pytest.approx(found, abs=0.001)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"bands": 30, "rows": 7}, "more than the 126"),
        ({"threshold": 0.4}, "related"),
        ({"threshold": 1.5}, "threshold"),
        ({"bands": 0}, "bands"),
        ({"ngrams": 5}, "ngrams"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], words: str):
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(settings, DedupConfig)


def test_related_may_be_as_strict_as_the_threshold():
    assert msgspec.convert({"related": 0.8}, DedupConfig).related == 0.8
