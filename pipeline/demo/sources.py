"""Real text that lies on every Python machine: the standard library's documentation, and what
installed distributions say.

Run as a child process (`python -m pipeline.demo.sources SKIPPED...`), it writes one JSON line per
article. Importing a module runs its code, so a crash must cost one module, not the demo: before
each import a line names what is about to be imported. Rule: the same installation gives the same
lines in any process. Data sections are left out, for they show paths and environment.
"""

import importlib
import importlib.metadata as metadata
import inspect
import json
import pkgutil
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from html import escape
from types import ModuleType

from pipeline.demo.markup import from_markdown, from_plain, scrub

LEAST_WORDS = 40
"""Shorter texts are no article: a crawl would drop them as too short, and a few such pages are made
elsewhere."""
OWN_PAGE_WORDS = 60
"""A function with so long a description has a page of its own; its module's page shows the first
paragraph."""
LICENCES = 2
"""Of one distribution at most: some bundle a hundred, and licences should not be half of the
web."""
SIGNATURE_CHARACTERS = 40
"""Longer signatures are code, not prose."""
MOST_CHARACTERS = {"readme": 3_000, "licence": 8_000}
"""Longer ones are cut at a paragraph: a few change logs and bundled licences would be half of the
text, and a small model is to learn prose from it."""

# Modules whose import only defines things. Those that open windows, print, patch or look at the
# machine are not in the list.
MODULES = """
abc argparse array ast asyncio atexit base64 bdb binascii bisect builtins bz2 cProfile calendar
cmath cmd code codecs codeop collections collections.abc colorsys compileall concurrent
configparser contextlib contextvars copy copyreg csv ctypes dataclasses datetime dbm decimal
difflib dis doctest email enum errno faulthandler fcntl filecmp fileinput fnmatch fractions ftplib
functools gc genericpath getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html http
imaplib importlib inspect io ipaddress itertools json keyword linecache locale logging lzma mailbox
marshal math mimetypes mmap modulefinder multiprocessing netrc nturl2path numbers opcode operator
optparse os pathlib pdb pickle pickletools pkgutil platform plistlib poplib posixpath pprint
profile pstats pty py_compile pyclbr pydoc queue quopri random re reprlib resource rlcompleter
runpy sched secrets select selectors shelve shlex shutil signal smtplib socket socketserver sqlite3
ssl stat statistics string stringprep struct subprocess symtable sys tabnanny tarfile tempfile
termios textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc tty types
typing unicodedata unittest urllib uuid warnings wave weakref webbrowser wsgiref xml xmlrpc zipapp
zipfile zipimport zlib zoneinfo
"""
_LICENCE = re.compile(r"(^|/)(licen[sc]es?|copying|notice|authors)([^/]*)$", re.IGNORECASE)
_NO_TEXT = (".py", ".pyc", ".pyi", ".js", ".json", ".html", ".so", ".gz")

Article = dict[str, str]


def main(skipped: frozenset[str]) -> None:
    """Write every article to standard output, one JSON object a line; `{"at": name}` announces an
    import."""
    warnings.simplefilter("ignore")
    for name in MODULES.split():
        for found in _names(name, skipped):
            for article in _module(found):
                _say(article)
    for article in (*_topics(), *_distributions()):
        _say(article)


def _say(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _load(name: str, skipped: frozenset[str]) -> ModuleType | None:
    if name in skipped:
        return None
    _say({"at": name})
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError):  # not built or not meant for this system
        return None


def _names(name: str, skipped: frozenset[str]) -> Iterator[ModuleType]:
    module = _load(name, skipped)
    if module is None:
        return
    yield module
    for child in sorted(
        item.name for item in pkgutil.iter_modules(getattr(module, "__path__", []))
    ):
        if child.startswith("_") or child.startswith("test") or "win" in child:
            continue
        found = _load(f"{name}.{child}", skipped)
        if found is not None:
            yield found


def _module(module: ModuleType) -> Iterator[Article]:
    """The module's own page (its description and functions), then a page for each public class it
    defines."""
    name = module.__name__
    members = [(key, value) for key, value in sorted(vars(module).items()) if key[0] != "_"]
    parts = [_paragraphs(module)]
    functions = []
    for key, value in members:
        if inspect.isroutine(value) and getattr(value, "__module__", None) == name:
            text = _routine(key, value)
            long = len((inspect.getdoc(value) or "").split()) >= OWN_PAGE_WORDS
            functions += [(key, text)] if long else []
            parts.append(text.partition("</p>")[0] + "</p>" if long else text)
    yield from _article("module", name, f"{name} – {_first_line(module)}", "\n".join(parts))
    for key, text in functions:
        yield from _article("function", f"{name}.{key}", f"The function {name}.{key}", text)
    for key, value in members:
        if inspect.isclass(value) and value.__module__ == name and value.__name__ == key:
            yield from _class(name, value)


def _class(module: str, cls: type) -> Iterator[Article]:
    parts = [_paragraphs(cls)]
    for key, value in sorted(vars(cls).items()):
        if key[0] != "_" and (inspect.isroutine(value) or isinstance(value, property)):
            parts.append(_routine(key, value))
    name = f"{module}.{cls.__name__}"
    yield from _article("class", name, f"The class {name}", "\n".join(parts))


def _routine(name: str, value: object) -> str:
    text = _paragraphs(value)
    if not text:
        return ""
    return f"<h3>{escape(name)}{escape(scrub(_signature(value)))}</h3>\n{text}"


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    try:
        shown = str(inspect.signature(value))
    except (ValueError, TypeError):  # written in C without a signature, or not really callable
        return "(...)"
    return shown if len(shown) <= SIGNATURE_CHARACTERS else "(...)"


def _paragraphs(value: object) -> str:
    text = inspect.getdoc(value)
    return from_plain(text) if isinstance(text, str) else ""


def _first_line(value: object) -> str:
    lines = (inspect.getdoc(value) or "").strip().splitlines()
    return scrub(lines[0].strip().rstrip(".")) if lines else "a module of the standard library"


def _topics() -> Iterator[Article]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions of Python ship it separately
        return
    for name in sorted(topics):
        title = topics[name].strip().split("\n", 1)[0]
        yield from _article("topic", name.lower(), title, from_plain(topics[name]))


def _distributions() -> Iterator[Article]:
    found: dict[str, metadata.Distribution] = {}
    for item in metadata.distributions():
        found.setdefault(_plain_name(item), item)  # the first on the path is the one imported
    found.pop("webtext", None)  # our own README would change the demo with each commit
    for name in sorted(found):
        yield from _readme(name, found[name])
        yield from _licences(name, found[name])


def _plain_name(item: metadata.Distribution) -> str:
    return re.sub(r"[-_.]+", "-", item.metadata["Name"] or "unnamed").lower()


def _readme(name: str, item: metadata.Distribution) -> Iterator[Article]:
    fields = item.metadata
    text = fields["Description"] or str(fields.get_payload() or "")  # type: ignore[attr-defined]
    kind = fields["Description-Content-Type"] or ""
    text = _cut(text, "readme")
    html = from_markdown(text) if kind.startswith("text/markdown") else from_plain(text)
    yield from _article("readme", name, f"{name}: {fields['Summary'] or 'a package'}", html)


def _licences(name: str, item: metadata.Distribution) -> Iterator[Article]:
    paths = [path for path in item.files or [] if _LICENCE.search(path.as_posix())]
    for path in sorted(paths, key=lambda path: (len(path.parts), str(path)))[:LICENCES]:
        if path.suffix in _NO_TEXT:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):  # listed but not installed, or not text
            continue
        key = f"{name}/{path.as_posix().split('dist-info/')[-1]}"
        title = f"{name}: {path.name}"
        yield from _article("licence", key, title, from_plain(_cut(text, "licence")))


def _cut(text: str, kind: str) -> str:
    text, most = textwrap.dedent(text), MOST_CHARACTERS[kind]
    return text if len(text) <= most else text[:most].rpartition("\n\n")[0]


def _article(kind: str, key: str, title: str, html: str) -> Iterator[Article]:
    if len(re.sub(r"<[^>]*>", " ", html).split()) >= LEAST_WORDS:
        yield {"kind": kind, "key": key, "title": scrub(title)[:160], "html": html}


if __name__ == "__main__":
    main(frozenset(sys.argv[1:]))
