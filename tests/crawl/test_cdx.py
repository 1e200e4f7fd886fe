"""Lines of a textual index that are none cost no other, wherever they stand."""

from pathlib import Path

import pytest

from crawl import indexes
from crawl.schema import BadInput
from pipeline.stage import Account
from tests import web

GOOD = (
    b'com,a)/ 20160101000000 {"url": "http://a.com/", "mime": "text/html", "status": "200", '
    b'"digest": "A", "length": "9", "offset": "5", "filename": "x.warc.gz"}\n'
)
COLUMNS = b"com,a)/ 20160101000000 http://a.com/ text/html 200 A - - 9 5 x.warc.gz\n"
LEGEND = b" CDX N b a m s k r M S V g\n"
BAD = {
    "garbage": b"\x00\xff garbage\n",
    "tabs": GOOD.replace(b" ", b"\t"),
    "stamp": GOOD.replace(b"20160101000000", b"20160101000000123"),
}


def look(path: Path, account: Account) -> list[str]:
    links = [web.links_to("http://a.com/")]
    batches = list(indexes.look(str(path), links, account))
    return [row["file"] for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("good", [GOOD, COLUMNS, LEGEND + COLUMNS], ids=["json", "11", "legend"])
@pytest.mark.parametrize("bad", BAD)
def test_a_first_line_that_is_none_is_told_and_the_others_are_read(
    tmp_path: Path, bad: str, good: bytes
) -> None:
    (tmp_path / "x.cdx").write_bytes(b"\n" + BAD[bad] * 2 + good * 2)
    account = Account()
    assert look(tmp_path / "x.cdx", account) == ["x.warc.gz"] * 2
    assert account.left_out["unreadable"] == 2 == len(account.faults)
    assert all(repr(BAD[bad][:9])[2:-1] in told for told in account.faults)
    # what was counted is not counted again by who goes on
    kept = Account(place=account.place)
    assert look(tmp_path / "x.cdx", kept) == [] and not kept.left_out["unreadable"]


def test_a_moment_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.cdxj").write_bytes(GOOD + BAD["stamp"] + GOOD.replace(b'"9"', b'"9x"'))
    account = Account()
    assert look(tmp_path / "x.cdxj", account) == ["x.warc.gz"]
    assert account.left_out["unreadable"] == 2 == len(account.faults)


@pytest.mark.parametrize("bad", BAD)
def test_a_file_without_any_line_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "x.cdxj").write_bytes(BAD[bad] * 9)
    with pytest.raises(BadInput, match=r"x\.cdxj: is no index"):
        look(tmp_path / "x.cdxj", Account())
