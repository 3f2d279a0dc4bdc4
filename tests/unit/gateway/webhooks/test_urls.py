from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.webhooks.operations import WebhookUrlRefused, check_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://hooks.example.com/in?token=abc",
        "http://example.com:8080/hook",
        "https://example.com:443/",
        "https://xn--bcher-kva.example/",
        "https://93.184.216.34/hook",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/hook",
        "https://example.com./hook",
        "HTTPS://EXAMPLE.COM/",
        "https://a_b.example.com/",
    ],
)
def test_a_public_url_is_accepted(url: str) -> None:
    check_url(url, allow_loopback=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://:443/",
        "https://user:pw@example.com/",
        "https://@example.com/",
        "https://example.com/#part",
        "https://example.com/#",
        "https://example.com\\@internal/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: internal",
        "https://example.com/\x00",
        "https://bücher.example/",
        "https://127。0。0。1/",
        "https://%6c%6fcalhost/",
        "https://example..com/",
        "https://-example.com/",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:99999/",
        "https://example.com:x/",
    ],
)
def test_a_malformed_or_deceptive_url_is_refused(url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        check_url(url, allow_loopback=True)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  # an address to refuse, not to listen on
        "224.0.0.1",
        "255.255.255.255",
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[::]",
        "[::ffff:10.0.0.1]",
        "[2001:db8::1]",
    ],
)
@pytest.mark.parametrize("allow_loopback", [True, False])
def test_an_address_that_is_not_public_is_refused(host: str, *, allow_loopback: bool) -> None:
    with pytest.raises(WebhookUrlRefused, match="not a public one"):
        check_url(f"https://{host}/hook", allow_loopback=allow_loopback)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "127.0.0.0x1", "1", "a.b.0x"]
)
def test_an_address_in_disguise_is_refused(host: str) -> None:
    with pytest.raises(WebhookUrlRefused, match="disguised"):
        check_url(f"https://{host}/hook", allow_loopback=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9000",
        "127.8.9.10:9000",
        "localhost:9000",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "[::1]:9000",
        "[::ffff:127.0.0.1]",
    ],
)
def test_loopback_is_for_local_development_alone(host: str) -> None:
    check_url(f"http://{host}/hook", allow_loopback=True)

    with pytest.raises(WebhookUrlRefused, match="not a public one"):
        check_url(f"http://{host}/hook", allow_loopback=False)


@given(st.text() | st.text().map("https://{}".format))
def test_whatever_comes_is_accepted_or_refused(url: str) -> None:
    with suppress(WebhookUrlRefused):
        check_url(url, allow_loopback=False)


def test_a_refusal_does_not_repeat_the_url() -> None:
    with pytest.raises(WebhookUrlRefused) as refused:
        check_url("https://10.0.0.1/in?token=hunter2", allow_loopback=False)

    assert "hunter2" not in str(refused.value)
