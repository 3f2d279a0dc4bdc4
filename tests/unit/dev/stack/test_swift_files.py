import configparser
from pathlib import Path

from dev.stack import swift_files

HOME = Path("/state/swift")


def parsed(sections: swift_files.Sections) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(swift_files.render(sections))
    return parser


def test_the_s3_api_accepts_as_many_parts_as_aws() -> None:
    proxy = parsed(swift_files.proxy_server(home=HOME, port=1, user="me", secret_key="s"))  # noqa: S106  # nobody's key

    assert proxy["filter:s3api"]["max_upload_part_num"] == "10000"
    assert proxy["filter:slo"]["max_manifest_segments"] == "10000"


def test_the_access_key_names_account_and_user() -> None:
    proxy = parsed(swift_files.proxy_server(home=HOME, port=1, user="me", secret_key="s"))  # noqa: S106  # nobody's key

    assert proxy["filter:tempauth"]["user_waybill_local"] == "s .admin"


def test_every_filter_of_the_pipeline_is_configured() -> None:
    proxy = parsed(swift_files.proxy_server(home=HOME, port=1, user="me", secret_key="s"))  # noqa: S106  # nobody's key

    *filters, app = proxy["pipeline:main"]["pipeline"].split()
    assert {f"filter:{each}" for each in filters} <= set(proxy.sections())
    assert f"app:{app}" in proxy.sections()


def test_servers_run_as_the_current_user_on_loopback() -> None:
    for kind in swift_files.STORAGE_SERVERS:
        server = parsed(swift_files.storage_server(kind, home=HOME, port=6_000, user="me"))
        assert server["DEFAULT"]["bind_ip"] == "127.0.0.1"
        assert server["DEFAULT"]["bind_port"] == "6000"
        assert server["DEFAULT"]["user"] == "me"
        assert server["DEFAULT"]["devices"] == "/state/swift"
