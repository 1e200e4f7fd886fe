"""What is said of a gang that failed."""

from pipeline import gang


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
