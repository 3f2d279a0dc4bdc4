"""The configuration files of a one-disk Swift with the S3 API in front."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dev.stack.certificates import Certificates
from dev.stack.identity import S3_ACCESS_KEY_ID

STORAGE_SERVERS: Final = ("account", "container", "object")
REGION: Final = "us-east-1"

Sections = dict[str, dict[str, object]]


def render(sections: Sections) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
        for name, options in sections.items()
    )


def cluster(*, hash_suffix: str) -> Sections:
    return {
        "swift-hash": {"swift_hash_path_suffix": hash_suffix},
        "storage-policy:0": {"name": "gold", "default": "yes"},
    }


def storage_server(kind: str, *, home: Path, port: int, user: str) -> Sections:
    name = f"{kind}-server"
    return {
        "DEFAULT": {
            "devices": home,
            "mount_check": "false",
            "disable_fallocate": "true",
            "recon_cache_path": home / "cache",
            **_server(home, port=port, user=user),
        },
        "pipeline:main": {"pipeline": name},
        f"app:{name}": {"use": f"egg:swift#{kind}", **_TIMEOUTS},
    }


def proxy_server(
    *,
    home: Path,
    port: int,
    user: str,
    secret_key: str,
    certificates: Certificates | None = None,
) -> Sections:
    """Return the configuration of a proxy; with certificates it serves TLS."""
    pipeline = "catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo dlo symlink proxy-server"
    account, _, name = S3_ACCESS_KEY_ID.partition(":")
    filters: Sections = {
        "s3api": {
            "location": REGION,
            "max_upload_part_num": 10_000,  # AWS's limit; the default is 1,000
            "max_parts_listing": 1_000,
            "s3_acl": "no",
            "check_bucket_owner": "no",
        },
        "tempauth": {f"user_{account}_{name}": f"{secret_key} .admin"},
        "slo": {
            "max_manifest_segments": 10_000,
            "max_manifest_size": 16 * 1024 * 1024,
            # Otherwise the parts of a deleted object wait for an expirer, which does not run here.
            "allow_async_delete": False,
        },
    }
    return {
        "DEFAULT": {**_server(home, port=port, user=user), **_tls(certificates)},
        "pipeline:main": {"pipeline": pipeline},
        "app:proxy-server": {
            "use": "egg:swift#proxy",
            "allow_account_management": "true",
            "account_autocreate": "true",
            # There is one disk: avoiding it for a minute after errors would be an outage.
            "error_suppression_limit": 1_000_000,
            "error_suppression_interval": 0,
            **_TIMEOUTS,
        },
        **{
            f"filter:{each}": {"use": f"egg:swift#{each}", **filters.get(each, {})}
            for each in pipeline.split()[:-1]
        },
    }


# The defaults are too short for one machine that also runs the test suite.
_TIMEOUTS: Final = {"conn_timeout": 5, "node_timeout": 60}


def _server(home: Path, *, port: int, user: str) -> dict[str, object]:
    return {
        "bind_ip": "127.0.0.1",
        "bind_port": port,
        "workers": 0,
        "user": user,
        "swift_dir": home / "etc",
        "log_level": "WARNING",
        "log_custom_handlers": "dev.stack.swift_logging.without_syslog",
    }


def _tls(certificates: Certificates | None) -> dict[str, object]:
    if certificates is None:
        return {}
    return {"cert_file": certificates.server, "key_file": certificates.server_key}


def write(directory: Path, files: Mapping[str, Sections]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, sections in files.items():
        file = directory / name
        file.touch(mode=0o600)
        file.write_text(render(sections))
