import pytest

from gateway.http.preconditions import UNCONDITIONAL, PreconditionFailed, Preconditions
from gateway.http.problems import InvalidRequest


def preconditions(**fields: str) -> Preconditions:
    lines = {name.replace("_", "-"): [value] for name, value in fields.items()}
    return Preconditions.of(lambda field: lines.get(field, []))


def test_a_request_without_conditions_always_holds() -> None:
    assert preconditions() == UNCONDITIONAL
    UNCONDITIONAL.check(None)
    UNCONDITIONAL.check("a")


@pytest.mark.parametrize(
    ("fields", "etag", "holds"),
    [
        ({"If_Match": "*"}, "a", True),
        ({"If_Match": "*"}, None, False),
        ({"If_Match": '"a"'}, "a", True),
        ({"If_Match": '"b" , "a"'}, "a", True),
        ({"If_Match": '"b"'}, "a", False),
        ({"If_Match": '"a"'}, None, False),
        ({"If_Match": 'W/"a"'}, "a", False),
        ({"If_Match": '"*"'}, "a", False),
        ({"If_Match": '"x,y", "a"'}, "a", True),
        ({"If_None_Match": "*"}, None, True),
        ({"If_None_Match": " * "}, "a", False),
        ({"If_None_Match": '"a"'}, "a", False),
        ({"If_None_Match": 'W/"a"'}, "a", False),
        ({"If_None_Match": '"b","c"'}, "a", True),
        ({"If_None_Match": '"a"'}, None, True),
        ({"If_Match": '"a"', "If_None_Match": '"a"'}, "a", False),
        ({"If_Match": '"a"', "If_None_Match": '"b"'}, "a", True),
    ],
)
def test_a_condition_is_compared_with_the_stored_etag(
    fields: dict[str, str], etag: str | None, *, holds: bool
) -> None:
    condition = preconditions(**fields)

    if holds:
        condition.check(etag)
    else:
        with pytest.raises(PreconditionFailed, match="does not hold"):
            condition.check(etag)


@pytest.mark.parametrize("value", ["", "a", '"a', 'a"', '"a" "b"', '*, "a"', 'w/"a"', '"a";x'])
@pytest.mark.parametrize("field", ["If_Match", "If_None_Match"])
def test_a_malformed_condition_is_refused(field: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=field.replace("_", "-")):
        preconditions(**{field: value})
