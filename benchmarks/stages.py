"""Rows and bytes per second of each stage on the demo's web, and what a rebuild of nothing costs.

Usage: python benchmarks/stages.py [PAGES] [ROUNDS]. The web is served by this process on loopback;
the rebuild runs in a process of its own, without Ray, so that stages do not share the CPUs. Medians
over the rounds; seconds are those of the stages' own reports, summed over tasks.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # where `crawl` is the package, not the script here

from pipeline import state  # noqa: E402
from pipeline.demo import dump, server, site  # noqa: E402

RECIPE = str(Path(__file__).parents[1] / "recipes/demo.toml")


def main(pages: int, rounds: int) -> None:
    web = site.build(pages=pages, hosts=max(20, pages // 8))
    with tempfile.TemporaryDirectory() as name, server.serve(web) as served:
        folder = Path(name)
        dump.write(web, folder / "RS.zst", seed=1)
        words = [
            RECIPE,
            f"crawl.submissions=['{folder / 'RS.zst'}']",
            f'crawl.resolve."*.test"="{served.address}"',
        ]
        found = [measure(folder / str(number), words) for number in range(rounds)]
    show(found, pages)


def measure(root: Path, words: list[str]) -> dict[str, tuple[int, int, float]]:
    """(rows, bytes, seconds) of each dataset, and of a second rebuild."""
    rebuild(root, words)
    run = state.datasets(root)
    measured = {
        name: (d.manifest.rows, d.manifest.bytes, d.manifest.seconds) for name, d in run.items()
    }
    began = time.perf_counter()
    rebuild(root, words)
    return measured | {"(a second rebuild)": (0, 0, time.perf_counter() - began)}


def rebuild(root: Path, words: list[str]) -> None:
    """One `webtext rebuild`, quiet."""
    command = [sys.executable, "-m", "pipeline", "rebuild", *words, f"root={root}", "--local"]
    subprocess.run(command, check=True, capture_output=True)


def show(found: list[dict[str, tuple[int, int, float]]], pages: int) -> None:
    """The table."""
    print(f"{pages} pages, median of {len(found)} rounds")
    print(f"{'stage':20}{'rows':>8}{'kB':>10}{'seconds':>10}{'rows/s':>10}{'kB/s':>10}")
    for name, (rows, size, _) in found[0].items():
        seconds = statistics.median(round_[name][2] for round_ in found)
        rates = f"{rows / seconds:>10,.0f}{size / 1000 / seconds:>10,.0f}" if rows else ""
        print(f"{name:20}{rows:>8,}{size / 1000:>10,.0f}{seconds:>10.2f}{rates}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [300, 3][len(given) :]))
