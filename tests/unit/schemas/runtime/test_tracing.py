import pytest

from schemas.runtime.tracing import valid_traceparent

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_valid_traceparent_is_kept() -> None:
    assert valid_traceparent(VALID) == VALID


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        VALID.upper(),
        VALID + "\n",
        VALID + "-extra",
        VALID.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "x" * 10_000,
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str | None) -> None:
    assert valid_traceparent(header) is None
