from __future__ import annotations

import pytest

from gateway import security
from gateway.security import Unauthenticated


def test_keys_are_never_alike_and_carry_256_bits() -> None:
    keys = {security.new_key() for _ in range(1000)}

    assert len(keys) == 1000
    assert all(key.startswith("wb_") and len(key) == len("wb_") + 43 for key in keys)


@pytest.mark.parametrize("header", ["Bearer wb_abc", "bearer wb_abc", "BEARER  wb_abc "])
def test_a_bearer_key_is_found(header: str) -> None:
    assert security.bearer(header) == "wb_abc"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic d2I6",
        "wb_abc",
        "Bearer " + "k" * 300,
        "Bearer schlüssel",
    ],
)
def test_anything_else_is_no_key(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        security.bearer(header)


def test_a_key_is_not_told_in_an_error() -> None:
    with pytest.raises(Unauthenticated) as raised:
        security.bearer("Token wb_hunter2")

    assert "hunter2" not in str(raised.value)
