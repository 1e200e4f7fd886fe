"""The conformance matrix of robots.txt: reads `robots_cases.tsv`, runs a case, writes the table.

`python -m tests.crawl.robots_matrix` writes the table into docs/robots.md; a test holds it there.

A case is what http://a.test answers when its robots.txt is asked for, and what that allows.
`>` leads on from a redirect; `|` asks again later, or only looks again (`-`). FORBID is the file
that disallows all; every answer carries the file, whatever its status. `¶` is a line end, `\\xNN`
an octet, `{text*N}` a text N times, in which `{n}` counts.
"""

import codecs
import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import brotli
import zstandard

from crawl import robots
from crawl.origins import Origins
from crawl.robots import Rules, Step

CASES = Path(__file__).with_name("robots_cases.tsv")
PAGE = Path(__file__).parents[2] / "docs" / "robots.md"
BEGIN, END = "<!-- cases: begin -->", "<!-- cases: end -->"

SITE = "http://a.test"
TOKEN = "webtext"
FORBID = "user-agent: *¶disallow: /"
HOURS = {"h": 3600.0, "d": 24 * 3600.0}
ERRORS = frozenset({"timeout", "refused", "reset", "no-name", "tls"})
REPEATED = re.compile(r"\{((?:[^{}]|\{n\})*)\*([0-9]+)\}")
ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})(?:\\u(d[c-f][0-9a-f]{2}))?|([rt0]))")
CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
    "rot13": bytes,
    "compress": bytes,
    "utf-8": bytes,
}


@dataclass(frozen=True)
class Case:
    """One row: `allowed` and `refused` are paths, or whole URLs."""

    section: str
    answers: str
    file: str
    allowed: tuple[str, ...]
    refused: tuple[str, ...]
    by: str


def cases() -> list[Case]:
    """All of them, in their order."""
    found, section = [], ""
    for line in CASES.read_text("utf-8").splitlines()[1:]:
        if line.startswith("# "):
            section = line[2:]
            continue
        answers, file, allowed, refused, by = line.split("\t")
        found.append(
            Case(section, answers, file, tuple(allowed.split()), tuple(refused.split()), by)
        )
    return found


def wrong(case: Case) -> list[str]:
    """The URLs of a case on which the verdict is another than it should be."""
    rules = _rules(case.answers, octets(case.file))
    asked = [(path, True) for path in case.allowed] + [(path, False) for path in case.refused]
    assert asked, f"{case}: asks nothing"
    return [
        path
        for path, allowed in asked
        if rules.allows(path if path.startswith("http") else SITE + path) is not allowed
    ]


def octets(file: str) -> bytes:
    """The bytes that a file of the table stands for."""
    file = FORBID if file == "FORBID" else file

    def repeated(found: re.Match[str]) -> str:
        text, times = found.group(1), int(found.group(2))
        if "{n}" not in text:
            return text * times
        return "".join(text.replace("{n}", str(n)) for n in range(times))

    def unescaped(found: re.Match[str]) -> str:
        octet, unit, low, letter = found.groups()
        if octet:
            return chr(0xDC00 + int(octet, 16)) if octet > "7f" else chr(int(octet, 16))
        if unit:
            units = (unit + (low or "")).encode()
            return codecs.decode(units, "hex").decode("utf-16-be")
        return {"r": "\r", "t": "\t", "0": "\0"}[letter]

    text = ESCAPE.sub(unescaped, REPEATED.sub(repeated, file).replace("¶", "\n"))
    return text.encode("utf-8", "surrogateescape")


def _rules(answers: str, body: bytes) -> Rules:
    origins, now, rules = Origins(), 0.0, None
    for fetched in answers.split(" | "):
        if fetched.startswith("@"):
            moment, _, fetched = fetched.partition(" ")
            now = float(moment[1:-1]) * HOURS[moment[-1]]
        rules = origins.known(SITE, now)
        if fetched == "-":
            assert rules is not None, "a fresh copy is used"
        else:
            assert rules is None, "what is not fresh is asked for again"
            rules = origins.settle(SITE, _fetched(fetched, body), now)
    assert rules is not None
    return rules


def _fetched(answers: str, body: bytes) -> Rules:
    step: Step | Rules = robots.begin(SITE + "/page", TOKEN)
    for answer in answers.split(" > "):
        assert isinstance(step, Step), f"nothing is asked for after {answer}"
        step = _answered(step, answer, body)
    assert isinstance(step, Rules), f"more is asked for: {step}"
    return step


def _answered(step: Step, answer: str, body: bytes) -> Step | Rules:
    if answer in ERRORS:
        return robots.failed(step)
    status, *words = answer.split()
    headers: list[tuple[str, str]] = []
    truncated = None
    for word in words:
        if word in CODINGS:
            headers.append(("Content-Encoding", word))
            body = CODINGS[word](body)
        elif word == "damaged":
            body = b"\x00" + body[1:]
        elif word in ("length", "time", "disconnect"):
            truncated = word
        elif word.startswith("utf-16"):
            mark = codecs.BOM_UTF16_LE if word.endswith("le") else codecs.BOM_UTF16_BE
            body = mark + body.decode().encode(word)
        else:
            headers.append(("location", word.removeprefix("to=")))
    return robots.answered(step, int(status), tuple(headers), body, truncated=truncated)


def table() -> str:
    """The matrix in Markdown."""
    lines: list[str] = []
    section = ""
    for number, case in enumerate(cases(), 1):
        if case.section != section:
            section = case.section
            lines += ["", f"### {section}", "", "| # | answers | file | allowed | refused | by |",
                      "|---|---|---|---|---|---|"]  # fmt: skip
        cells = [_code(case.answers), _code(case.file), *map(_codes, (case.allowed, case.refused))]
        lines.append(f"| {number} | {' | '.join(cells)} | {case.by} |")
    return "\n".join([BEGIN, *lines, "", END])


def _codes(paths: tuple[str, ...]) -> str:
    return " ".join(map(_code, paths))


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def written(page: str) -> str:
    """A page with the table put between its marks."""
    before, _, rest = page.partition(BEGIN)
    return before + table() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
