from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.enrich.passages import SHORTEST, Budget, tokens_of
from pipeline.ingest.table_passages import passages_of
from tests.factories.tables import a_table

BUDGET = Budget(tokens=50, overlap=0)

# A machine with other work takes longer to make a table.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_row_stands_with_its_caption_and_header() -> None:
    table = a_table(("Hamburg", "Coffee", "1200"), page=3, caption="Cargo of\nMay")

    (passage,) = passages_of(table, budget=BUDGET)

    assert passage.page == 3
    assert passage.text == "Cargo of May\nPort | Cargo | Weight\nHamburg | Coffee | 1200"


def test_every_passage_of_a_long_table_repeats_caption_and_header() -> None:
    table = a_table(*[(f"Port {n}", "Coffee", str(n)) for n in range(100)], caption="Cargo")

    passages = list(passages_of(table, budget=BUDGET))

    assert len(passages) > 10
    assert all(each.text.startswith("Cargo\nPort | Cargo | Weight\n") for each in passages)
    rows = [line for each in passages for line in each.text.splitlines()[2:]]
    assert rows == [f"Port {n} | Coffee | {n}" for n in range(100)]


def test_a_table_of_a_header_alone_is_one_passage() -> None:
    (passage,) = passages_of(a_table(), budget=BUDGET)

    assert passage.text == "Port | Cargo | Weight"


def test_a_table_without_words_has_no_passage() -> None:
    assert list(passages_of(a_table(("-", "-", "."), header=()), budget=BUDGET)) == []


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=300)
rows = st.lists(st.tuples(texts, texts, texts), max_size=8)


@BUSY
@given(rows=rows, caption=texts)
def test_no_passage_is_too_long_or_too_short(
    rows: list[tuple[str, str, str]], caption: str
) -> None:
    passages = list(passages_of(a_table(*rows, caption=caption), budget=BUDGET))

    assert all(each.tokens == tokens_of(each.text) <= BUDGET.most for each in passages)
    assert all(len(each.text) >= SHORTEST for each in passages)


plain = st.text(alphabet=st.characters(codec="ascii", exclude_characters="\x00"), max_size=300)


@BUSY
@given(rows=st.lists(st.tuples(plain, plain, plain), max_size=8))
def test_every_word_of_a_row_is_in_a_passage(rows: list[tuple[str, str, str]]) -> None:
    passages = list(passages_of(a_table(*rows), budget=BUDGET))

    found = "".join("".join(each.text.split()) for each in passages)
    for row in rows:
        for text in row:
            for word in text.split():
                if len(word) < BUDGET.tokens:  # a longer one may be divided
                    assert word in found
