import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from pipeline.enrich import spacy_pipeline


@given(st.text("ab \n"), st.integers(min_value=1, max_value=10))
def test_pieces_and_their_offsets_make_up_the_text(whole: str, longest: int) -> None:
    found = list(spacy_pipeline.pieces(whole, longest=longest))
    assert "".join(piece for _, piece in found) == whole
    assert all(whole[offset:].startswith(piece) for offset, piece in found)
    assert all(0 < len(piece) <= longest for _, piece in found)


def test_a_piece_ends_after_a_line_else_after_a_word_else_anywhere() -> None:
    assert [piece for _, piece in spacy_pipeline.pieces("one two\nthree", longest=10)] == [
        "one two\n",
        "three",
    ]
    assert [piece for _, piece in spacy_pipeline.pieces("one two three", longest=10)] == [
        "one two ",
        "three",
    ]
    assert [piece for _, piece in spacy_pipeline.pieces("abcdefgh", longest=5)] == ["abcde", "fgh"]


def test_offsets_in_a_long_text_count_from_its_start() -> None:
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": "Ulm"}])  # type: ignore[attr-defined]  # typed as a callable
    line = "Write to Ulm about it.\n"
    found = list(spacy_pipeline.names(line * 6_000, pipeline=pipeline))
    assert [each.start for each in found] == [9 + place * len(line) for place in range(6_000)]


@pytest.mark.parametrize("characters", ["'", "$", "(", "'s", "\N{SECTION SIGN}"])
@pytest.mark.timeout(20)  # without a limit on words each case takes minutes
def test_a_text_of_punctuation_does_not_block_the_tokenizer(
    characters: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("model")
    spacy.blank("en").to_disk(path)
    pipeline = spacy_pipeline.load(str(path))
    assert list(spacy_pipeline.names(characters * 40_000, pipeline=pipeline)) == []


def test_new_words_are_forgotten() -> None:
    pipeline = spacy.blank("en")
    list(spacy_pipeline.names("some words", pipeline=pipeline))
    known = len(pipeline.vocab.strings)
    list(spacy_pipeline.names(" ".join(f"word{n}x" for n in range(1_000)), pipeline=pipeline))
    assert len(pipeline.vocab.strings) == known
