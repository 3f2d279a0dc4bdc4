import pytest

from schemas.policy import spreadsheets


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1+1",
        "-1*A1",
        "-1,000\n",
        "-A1",
        "@a",
        "\tx",
        "\rx",
        "\n1",
        "  =1",
        "\u00a0=",
        "\u200b@",
        "\ufeff-",
        "\uff1d1",
        "\ufe62",
    ],
)
def test_text_that_a_spreadsheet_calculates_is_a_formula(text: str) -> None:
    # The database has the same classes of characters.
    assert spreadsheets.guarded(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a=1",
        "1-2",
        " x",
        "(=1)",
        "'=1",
        "ä=",
        "\u2212x",
        "🧾",
        "-1",
        "+3.5%",
        "-1,234.50",
        "-1 234,5",
    ],
)
def test_other_text_is_no_formula(text: str) -> None:
    assert spreadsheets.guarded(text) == text
