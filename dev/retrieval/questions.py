"""Questions, each with the pages of one document that answer it."""

from pathlib import Path

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question, and the pages that answer it.

    Attributes:
        text: as a user types it.
        kind: such as `lexical`, `keyword`, `semantic`, `crosslingual`.
        file: name of the document with the answer.
        pages: the pages with the answer; any of them will do.
    """

    text: str = msgspec.field(name="q")
    kind: str
    file: str
    pages: list[int]


def load(path: Path) -> list[Question]:
    """Read a JSON list of questions.

    Raises:
        msgspec.ValidationError: the file is no such list.
    """
    return msgspec.json.decode(path.read_bytes(), type=list[Question])
