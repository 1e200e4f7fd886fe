"""Finds the body that a revisit stands for: that of a response earlier in the same archive.

Rule: of each response its place is held, two numbers and no body; the response is read once more
where a revisit of a link asks for it. What it is taken for, it has to be itself.
"""

from dataclasses import replace
from hashlib import blake2b

from crawl import warc

MOST = 1 << 18
"""Responses of which the places are held, at least, in some 120 MB; those before them are
forgotten."""


class Originals:
    """The responses of an archive, read so far."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._new, self._old = dict[int, int](), dict[int, int]()

    def note(self, record: warc.Record) -> None:
        """A record that was read, of any kind."""
        if record.answer is None or record.start is None:
            return
        if len(self._new) >= 2 * MOST:
            self._old, self._new = self._new, {}
        for key in _keys(record.identity, record.target, record.date):
            self._new[key] = record.start

    def resolved(self, record: warc.Record) -> warc.Record | None:
        """The response that a revisit stands for: its own headers, where it has some, and the body
        of the original. None where that is not to be had."""
        said = record.repeated
        if said is None:
            return None
        for key in _keys(said.identity, said.target, said.date):
            start = self._new.get(key, self._old.get(key))
            if start is None:
                continue
            found = warc.at(self._path, start, self._max_bytes)
            if found.answer and _is_meant(found, found.answer, record, said):
                own = said.answer or found.answer
                answer = replace(own, body=found.answer.body)
                return replace(record, kind="response", answer=answer, truncated=found.truncated)
        return None


def _keys(identity: str, target: str, date: str) -> list[int]:
    """What a response is found by."""
    names = [f"id {identity}"] if identity else []
    names += [f"at {date} {target}"] if target and date else []
    return [int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) for name in names]


def _is_meant(
    found: warc.Record, answer: warc.Answer, record: warc.Record, said: warc.Repeated
) -> bool:
    is_named = found.identity == said.identity or (found.target, found.date) == (
        said.target,
        said.date,
    )
    digests = {found.payload_digest, warc.digest(answer.body)}
    return is_named and record.payload_digest in {None, *digests}
