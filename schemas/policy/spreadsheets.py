"""Text that a spreadsheet would calculate.

Source: https://owasp.org/www-community/attacks/CSV_Injection
"""

import re
from typing import Final

_SIGNS: Final = r"=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""Signs that begin a formula, also in the full-width and small forms of East Asia."""

_IGNORED: Final = r"\s\x01-\x1f\x7f-\x9f\u00a0\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
"""What a spreadsheet may skip before the sign: white space, controls and characters without width."""

_NUMBER: Final = r"[+\-]\d[\d., \u00a0]*\x25?\Z"
"""A number with its sign, such as `-1,234.5` or `+3%`; the percent sign would be a placeholder in SQL."""

FORMULA: Final = rf"^(?!{_NUMBER})([{_IGNORED}]*[{_SIGNS}]|[\t\r\n])"
"""Text that a spreadsheet may calculate. A tab or a line break in front may end up as another cell.

A number is none, also with a sign: with an apostrophe, a spreadsheet would leave it out of sums.
"""

_FORMULA: Final = re.compile(FORMULA)


def guarded(text: str) -> str:
    """Return the text with an apostrophe in front if a spreadsheet may calculate it."""
    return f"'{text}" if _FORMULA.match(text) else text
