"""A small run made by the program itself, from an archive of pages whose text is the licence."""

import datetime
from pathlib import Path

from crawl import warc
from pipeline import config as settings
from pipeline import make
from pipeline.config import Config
from tests import foreign

LICENCE = (Path(__file__).parents[2] / "LICENSE").read_text().split()
WORDS = 180
MOMENT = warc.date_text(datetime.datetime(2016, 5, 4, tzinfo=datetime.UTC))


def config(folder: Path, *words: str) -> Config:
    """Eight pages of other texts, a near copy of the first, a stub, and a link without a page."""
    texts = [LICENCE[start : start + WORDS] for start in range(0, 8 * WORDS, WORDS)]
    pages = [*texts, [*texts[0][:90], "unlike", *texts[0][91:]], ["too", "short"]]
    addresses = [f"http://site-{number}.test/page" for number in range(len(pages) + 1)]
    (folder / "links.txt").write_text("\n".join(addresses))
    headers = (("Content-Type", "text/html"),)
    with (folder / "pages.warc.gz").open("wb") as file:
        for address, text in zip(addresses, pages, strict=False):
            html = f"<html><body><article><p>{' '.join(text)}</p></article></body></html>"
            foreign.write(file, address, MOMENT, warc.Answer(200, "OK", headers, html.encode()))
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'root = "{folder}/run"\n[crawl]\nlive = false\nshards = 2\nmin_karma = 0\n'
        f'submissions = ["{folder}/links.txt"]\narchives = ["{folder}/pages.warc.gz"]\n'
        "[corpus]\nvalidation_share = 0.5\n"
    )
    return settings.load(recipe, words)


def rebuild(made: Config, until: str | None = None) -> list[str]:
    """Make it, without Ray; what the command says."""
    return list(make.make(made, address=None, local=True, until=until, remake=None))
