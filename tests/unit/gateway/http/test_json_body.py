import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.json_body import decode
from gateway.http.problems import InvalidRequest


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
    ],
)
def test_json_is_decoded(body: bytes, value: object) -> None:
    assert decode(body) == value


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (b'{"a": "\\ud800"}', "a", "surrogate"),
        (b'{"a": "x\\udc00y"}', "a", "surrogate"),
        (b'{"a": "\\ud800\\u0041"}', "a", "surrogate"),
        (b'{"a": "\xed\xa0\x80"}', "a", "surrogate"),
        (b'{"metadata": {"k": "\\ud83d"}}', "metadata.k", "surrogate"),
        (b'{"metadata": {"k\\ud83d": "x"}}', r"metadata.k\ud83d", "surrogate"),
        (b'{"\\ud83d": {"k": "x"}}', r"\ud83d", "surrogate"),
        (b'{"chunks": [{}, {"sha256": "\\ud83d"}]}', "chunks[1].sha256", "surrogate"),
        (b'"\\ud83d"', "body", "surrogate"),
        (b'{"a": 1e400}', "a", "out of range"),
        (b'{"a": [-1e999]}', "a[0]", "out of range"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "a", "out of range"),
        (b'{"a": NaN}', "a", "out of range"),
        (b'{"a": "\xff"}', "body", "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "body", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "body", "nested too deeply"),
        (b'[{"a":' * 50_000, "body", "nested too deeply"),
        (b'{"a": "\\ud800"', "body", "not JSON"),
        (b"{", "body", "not JSON"),
        (b"{'a': 1}", "body", "not JSON"),
        (b'{"a": "b\nc"}', "body", "not JSON"),
        (b"a=b", "body", "not JSON"),
    ],
    ids=str,
)
def test_a_refusal_names_the_field(body: bytes, field: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        decode(body)

    assert refused.value.field == field


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a=b", "body: is not JSON: invalid character (byte 0)"),
        (b"{", "body: is not JSON: Input data was truncated"),
    ],
)
def test_a_refusal_of_malformed_json_repeats_no_word(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode(body)

    assert str(refused.value) == message


@given(st.binary() | st.text().map(str.encode))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    try:
        decode(body)
    except InvalidRequest as error:
        str(error).encode()
        error.field.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(st.characters(codec=None)) | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    )
)
def test_any_json_of_a_tolerant_client_is_decoded_or_refused(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        assert decode(body) == value
    except InvalidRequest as error:
        str(error).encode()
        error.field.encode()
