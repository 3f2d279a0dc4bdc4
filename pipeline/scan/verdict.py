"""What an answer of clamd means."""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

ANSWER_MAX: Final = 4096
"""Most bytes of an answer that are read; clamd's answers have a few dozen."""

SIGNATURE_MAX: Final = 200

_FOUND: Final = re.compile(r"stream: (.+) FOUND")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")
_STREAM_TOO_LONG: Final = "INSTREAM size limit exceeded. ERROR"
_LIMIT: Final = "Heuristics.Limits.Exceeded"
"""Begins the names under which clamd reports, with `AlertExceedsMax`, what it scanned in part only."""


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The whole file was scanned, and nothing was found."""


@dataclass(frozen=True, kw_only=True)
class Infected:
    """A signature matched; its name is printable ASCII."""

    signature: str


@dataclass(frozen=True, kw_only=True)
class ScannedInPart:
    """A limit of clamd ended the scan before the end of the file."""

    limit: str


@dataclass(frozen=True, kw_only=True)
class NoVerdict:
    """clamd reports an error of its own."""

    reason: str


Verdict: TypeAlias = Clean | Infected | ScannedInPart | NoVerdict


class NotClamd(Exception):
    """The answer is not one of clamd's."""


def verdict_of(answer: bytes) -> Verdict:
    """Return what clamd's answer to zINSTREAM means; it ends with a NUL.

    Raises:
        NotClamd: clamd does not answer so.
    """
    if not answer.endswith(b"\0"):
        raise NotClamd("no end")
    text = _UNPRINTABLE.sub("?", answer[:-1].decode("ascii", errors="replace"))
    if text == "stream: OK":
        return Clean()
    if text == _STREAM_TOO_LONG:
        return ScannedInPart(limit="it is larger than StreamMaxLength of clamd")
    if found := _FOUND.fullmatch(text):
        signature = found[1][:SIGNATURE_MAX]
        if signature.startswith(_LIMIT):
            return ScannedInPart(limit=signature)
        return Infected(signature=signature)
    if text.endswith(" ERROR"):
        return NoVerdict(reason=text.removesuffix(" ERROR")[:SIGNATURE_MAX])
    raise NotClamd(text[:SIGNATURE_MAX])


def is_pong(answer: bytes) -> bool:
    """Return whether clamd has answered zPING."""
    return answer == b"PONG\0"
