"""Plain text, docstrings and Markdown become HTML fragments: what stands inside a page's article.

Rule: pure functions of their text. Whatever differs from one process to the next (addresses of
objects) is scrubbed here.
"""

import re
import textwrap
from html import escape

from markdown_it import MarkdownIt

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
_STREAM = re.compile(r"<_io\.[^>]*>")
_BLANK = re.compile(r"\n[ \t]*\n")
_UNDERLINE = re.compile(r"([=\-~^*#+\"'`.])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"\s*(\.\. |:[a-z-]+:( |$))")
_BULLET = re.compile(r"\s{0,3}[-*+•]\s+")
_CODE = re.compile(r"``([^`]+)``|`([^`<]+)(?: <[^>]*>)?`_{0,2}")


def scrub(text: str) -> str:
    """Object addresses and open streams become fixed words, so that every process reads the same
    text."""
    return _STREAM.sub("<stream>", _ADDRESS.sub("0x0", text)).replace("\x00", "").expandtabs()


def from_plain(text: str) -> str:
    """HTML of plain or reStructuredText-like text: headings, paragraphs, lists, code.

    It is a reader's typesetting, not a reStructuredText parser: directives and field lines are left
    out.
    """
    blocks = _BLANK.split(textwrap.dedent(scrub(text)).strip("\n"))
    return "\n".join(filter(None, (_block(block) for block in blocks)))


def from_markdown(text: str) -> str:
    """HTML of CommonMark text with tables."""
    return str(MarkdownIt("commonmark").enable("table").render(scrub(text)))


def _block(block: str) -> str:
    lines = [line for line in block.rstrip().split("\n") if line.strip()]
    if len(lines) > 1 and _UNDERLINE.match(lines[0]) and not _UNDERLINE.match(lines[1]):
        lines = lines[1:]
    if len(lines) > 1 and _UNDERLINE.match(lines[1]):
        head = f"<h2>{_inline(lines[0].strip())}</h2>"
        rest = _block("\n".join(lines[2:])) if len(lines) > 2 else ""
        return f"{head}\n{rest}".rstrip()
    lines = [line for line in lines if not _DIRECTIVE.match(line) and not _UNDERLINE.match(line)]
    if not lines:
        return ""
    if _BULLET.match(lines[0].lstrip()):
        return _list([line.strip() for line in lines])
    if lines[0].lstrip().startswith(">>>") or all(line.startswith("    ") for line in lines):
        code = escape(textwrap.dedent("\n".join(lines)), quote=False)
        return f"<pre><code>{code}</code></pre>"
    prose = " ".join(line.strip() for line in lines)
    return f"<p>{_inline(prose.replace('::', ':') if prose.endswith('::') else prose)}</p>"


def _list(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        if _BULLET.match(line):
            items.append(_BULLET.sub("", line, count=1).strip())
        else:
            items[-1] += " " + line.strip()
    return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"


def _inline(text: str) -> str:
    return _CODE.sub(
        lambda found: f"<code>{found[1] or found[2]}</code>", escape(text, quote=False)
    )
