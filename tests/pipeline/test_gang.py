"""What is said of a gang that failed, or that there is no room for."""

import pytest

from pipeline import gang
from pipeline.failures import GangFailed


class Wrapped(Exception):
    """As Ray raises what a rank raised."""

    def __init__(self, cause: object) -> None:
        super().__init__("many lines\nof Ray's own")
        self.cause = cause


def failed(ranks: dict[int, Exception]) -> Exception:
    error = Exception("the training failed")
    error.worker_failures = ranks  # type: ignore[attr-defined]
    return error


def test_the_first_rank_is_told_in_its_last_line():
    first, second = Wrapped(ValueError("of many\nthe last")), ValueError("another")
    assert gang._cause(failed({1: second, 0: first})) == "the last"
    assert gang._cause(failed({1: second})) == "another"


def test_an_error_without_ranks_or_words_is_still_told():
    assert gang._cause(failed({})) == "the training failed"
    assert gang._cause(failed({0: KeyError()})) == "KeyError"


@pytest.mark.parametrize("use_gpu, told", [(True, "has 1 GPUs"), (False, "has 3 CPUs")])
def test_a_gang_that_would_wait_for_ever_is_refused(
    monkeypatch: pytest.MonkeyPatch, use_gpu: bool, told: str
):
    monkeypatch.setattr(gang.ray, "cluster_resources", lambda: {"CPU": 3.0, "GPU": 1.0})
    assert gang.gpus() == 1
    with pytest.raises(GangFailed, match=rf"^training\.ranks: is 4, but the cluster {told}$"):
        gang.run(
            lambda _: None,
            {},
            4,
            "folder",
            use_gpu=use_gpu,
            cpu_environment={},
            timeout_s=9.0,
            ask=print,
        )
