"""Writes docs/outcomes.md from `schemas.outcomes`: `python -m dev.outcomes_table`."""

from pathlib import Path
from typing import Final

from dev.stack.checkout import CHECKOUT
from schemas.outcomes import MEANINGS, Meaning, Outcome

PAGE: Final = CHECKOUT / "docs" / "outcomes.md"

INTRODUCTION: Final = """\
# Outcomes

<!-- Written by `python -m dev.outcomes_table` from schemas/outcomes.py; edit that. -->

What the reading of a document came to: `outcome` of the document, of its event and of the result of
its job. It is finer than the status, and stable: clients may branch on it.

- A document with some pages that are missing, cut short or waiting for OCR is `partial`, and its job is
  `completed` without an error. `reasons` of document, event and result say which pages and why.
- A document without any readable page is `failed`, with the outcome that its pages have in common, or `corrupt`.
- A failed reading does not replace an earlier one: the document then keeps its status and outcome, and only
  the job fails.
- "Again" says whether reading the same bytes again may give more, once an operator has changed something
  such as an engine for OCR. It is `retryable` in the error of a failed job.
- A document in which the malware scan found something is `quarantined` too, with the error `malware_found`,
  which has the name of the signature. Its file is not served, and what was read from it is withdrawn.
- A job may also fail by a fault of the system, such as `store_unavailable`; the document then has no outcome.

| outcome | document | job | error | again | meaning |
| --- | --- | --- | --- | --- | --- |
"""

PAGES: Final = """
A page has an outcome too: `complete` or `no_text` for a page that is read as a whole; `needs_ocr`;
or why it is missing (`corrupt`, `encrypted`, `timeout_page`, `out_of_memory`, `crashed`,
`limit_page_content`) or cut short (`limit_text`, `limit_page_text`, `limit_page_content`).
"""


def page() -> str:
    """Return the whole of docs/outcomes.md."""
    rows = "\n".join(_row(outcome, MEANINGS[outcome]) for outcome in Outcome)
    return f"{INTRODUCTION}{rows}\n{PAGES}"


def _row(outcome: Outcome, meaning: Meaning) -> str:
    error = f"`{meaning.code}`" if meaning.code else ""
    again = "yes" if meaning.retryable else "no"
    return (
        f"| `{outcome}` | `{meaning.document_status}` | `{meaning.job_status}` | {error} | {again} "
        f"| {meaning.sentence} |"
    )


def write(file: Path = PAGE) -> None:
    file.write_text(page())


if __name__ == "__main__":
    write()
