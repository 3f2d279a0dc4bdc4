import pytest

from pipeline.enrich import rules


@pytest.mark.parametrize(
    "iban", ["DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947"]
)
def test_an_iban_has_the_right_check_digits(iban: str) -> None:
    assert rules.is_iban(iban)
    assert not rules.is_iban(iban[:-1] + ("1" if iban[-1] != "1" else "2"))


@pytest.mark.parametrize("other", ["", "DE89", "de89370400440532013000", "89370400440532013000DE"])
def test_a_text_without_the_form_of_an_iban_is_refused(other: str) -> None:
    assert not rules.is_iban(other)
