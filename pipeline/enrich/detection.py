"""Detects the language of a text; loaded once, 75 MB and a second of CPU time."""

import re
from functools import cache
from typing import Any, Final, NamedTuple

# Longer texts are sampled at their begin, middle and end: the model takes 0.25 ms for 1,000 bytes.
_SAMPLE: Final = 600
_SLICES: Final = 3
# Addresses, codes and numbers have no language.
_NO_WORDS: Final = re.compile(r"[@\d\\_]|://|www\.")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_WIDE: Final = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7ff\uff66-\uff9d]")
_BYTES_MIN: Final = 20
_WORDS_MIN: Final = 3  # different ones, in scripts with spaces
CONFIDENCE_MIN: Final = 0.6
_NO_LANGUAGE: Final = "zxx"


class Language(NamedTuple):
    """A language, its ISO 639-1 code, and how sure it is, from 0 to 1."""

    code: str
    confidence: float


class Detector:
    """Detects languages with an ISO 639-1 code by frequent sequences of letters."""

    def __init__(self) -> None:
        self._identifier = _identifier()

    def detect(self, text: str) -> Language | None:
        """Return the language of `text`; None if it has too few words or no clear language."""
        return self.detect_words(words(text))

    def detect_words(self, sample: str) -> Language | None:
        """As `detect`, for what `words` returned."""
        if not is_enough(sample):
            return None
        code, confidence = self._identifier.classify(sample)
        if code == _NO_LANGUAGE or confidence < CONFIDENCE_MIN:
            return None
        return Language(code, round(confidence, 3))


@cache
def _identifier() -> Any:  # noqa: ANN401  # the package has no types
    # Imported here: processes that never detect a language do not load numpy.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # The others are small languages and dialects, which the model confuses with large ones.
    identifier.set_languages(
        {code for code in identifier.nb_classes if len(code) == len("en")} | {_NO_LANGUAGE}
    )
    return identifier


def words(text: str) -> str:
    """Return the words of a sample of `text`, without codes, numbers and addresses."""
    parts = (part for part in _sample(text).split() if not _NO_WORDS.search(part))
    kept = _WORD.findall(" ".join(parts))
    in_capitals = [word for word in kept if len(word) > 1 and word.isupper()]
    if 2 * len(in_capitals) > len(kept):  # a page in capital letters
        return " ".join(kept).lower()
    return " ".join(word for word in kept if len(word) == 1 or not word.isupper())


def is_enough(sample: str) -> bool:
    """Return whether `sample` has enough letters, and enough different words, to have a language."""
    return len(sample.encode()) >= _BYTES_MIN and (
        _WIDE.search(sample) is not None or len(set(sample.casefold().split())) >= _WORDS_MIN
    )


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE:
        return text
    size = _SAMPLE // _SLICES
    step = (len(text) - size) // (_SLICES - 1)
    return "\n".join(text[number * step : number * step + size] for number in range(_SLICES))
