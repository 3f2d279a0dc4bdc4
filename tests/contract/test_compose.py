"""compose.yaml and its image match the Compose specification and the code."""

import json
import os
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import SecretStr, TypeAdapter
from pydantic_settings import BaseSettings

import gateway.settings
import notifier.settings
import pipeline.settings
from dev import settings_table
from dev.stack.checkout import CHECKOUT
from dev.stack.services import MIGRATION, SERVICES, Readiness, Service
from schemas.key_ring import KeyRing
from schemas.settings import CelerySettings, Duration, ObjectStoreSettings

TEXT: Final = (CHECKOUT / "compose.yaml").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(TEXT)
CONTAINERS: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
DOCKERFILE: Final = (CHECKOUT / "Dockerfile").read_text()
RABBITMQ_CONF: Final = (CHECKOUT / "deploy/compose/rabbitmq.conf").read_text()

OURS: Final = [name for name, container in CONTAINERS.items() if "build" in container]
ONE_SHOTS: Final = [name for name, each in CONTAINERS.items() if each["restart"] == "no"]


class GatewaySettings(gateway.settings.Settings, gateway.settings.StoreSettings):
    """The two sections that the gateway loads."""


READERS: Final[dict[str, type[BaseSettings]]] = {
    "waybill-gateway": GatewaySettings,
    "waybill-relay": notifier.settings.Settings,
    "waybill-deliver": notifier.settings.DeliverSettings,
    "waybill-worker": pipeline.settings.Settings,
    "waybill-beat": pipeline.settings.Settings,
}
"""The settings that a program reads."""

VARIABLES_OF_OTHERS: Final = {
    "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"},
    "flower": {"PYTHONPATH"},
    "clamav": {
        "CLAMD_CONF_StreamMaxLength",
        "CLAMD_CONF_MaxFileSize",
        "CLAMD_CONF_MaxScanSize",
        "CLAMD_CONF_AlertExceedsMax",
    },
}

PINNED: Final = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.-]+)?")
LOGIN_IN_URL: Final = re.compile(r"://[^\s/:@]+:[^\s/@]+@")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return make_secrets(tmp_path / "secrets")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that sets no variable of the project."""
    for reader in READERS.values():
        for name, field in reader.model_fields.items():
            monkeypatch.delenv(settings_table.variable(name, field), raising=False)
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    return monkeypatch


def make_secrets(directory: Path) -> Path:
    script = CHECKOUT / "deploy/compose/make-secrets.sh"
    subprocess.run(["sh", script, directory], check=True, capture_output=True)
    return directory


def environment(name: str) -> dict[str, str]:
    """Return a container's environment, with the defaults of the user's variables."""
    return {
        variable: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for variable, value in CONTAINERS[name].get("environment", {}).items()
    }


def mounted_secrets(name: str) -> set[str]:
    """Return the names under which a container finds files in /run/secrets."""
    return {secret for secret in CONTAINERS[name].get("secrets", []) if isinstance(secret, str)}


def reader_of(service: Service) -> type[BaseSettings]:
    return READERS[service.command[0]]


def as_duration(text: str) -> timedelta:
    return TypeAdapter(Duration).validate_python(text)


def pins(lock: str) -> set[str]:
    return set(
        re.findall(r"^[\w.-]+==\S+", (CHECKOUT / "dev/locks" / lock).read_text(), re.MULTILINE)
    )


def test_the_file_follows_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())

    errors = Draft202012Validator(schema).iter_errors(COMPOSE)

    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_compose_runs_the_processes_of_the_local_stack_and_no_others() -> None:
    commands = {name: tuple(CONTAINERS[name]["command"]) for name in OURS}
    one_shots = {name: commands.pop(name) for name in ONE_SHOTS}

    assert commands == {service.name: service.command for service in SERVICES}
    assert one_shots["migrate"] == MIGRATION


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_container_sets_the_required_settings_and_only_settings_that_its_process_reads(
    service: Service, secrets: Path, tmp_path: Path, bare_environment: pytest.MonkeyPatch
) -> None:
    reader = reader_of(service)
    names = {settings_table.variable(*item): item[0] for item in reader.model_fields.items()}
    given = environment(service.name)
    mounted = tmp_path / "run"
    mounted.mkdir()
    for secret in mounted_secrets(service.name):
        (mounted / secret).write_text((secrets / secret).read_text())
    for variable, value in given.items():
        bare_environment.setenv(variable, value)

    loaded = reader(_secrets_dir=mounted)

    unread = {*given, *(secret.upper() for secret in mounted_secrets(service.name))} - {*names}
    assert not unread
    assert {names[variable] for variable in given} <= loaded.model_fields_set
    assert {secret.lower() for secret in mounted_secrets(service.name)} <= loaded.model_fields_set


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_health_check_matches_the_readiness_of_its_service(service: Service) -> None:
    probe = " ".join(CONTAINERS[service.name]["healthcheck"]["test"])

    match service.readiness:
        case Readiness.HEALTH_ENDPOINT:
            assert f":{environment(service.name)['GATEWAY_PORT']}/health/ready" in probe
        case Readiness.LIVENESS_FILE:
            assert environment(service.name)["LIVENESS_FILE"] in probe


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_container_has_enough_time_to_stop(service: Service) -> None:
    allowed = as_duration(CONTAINERS[service.name]["stop_grace_period"])

    assert allowed > service.stop_grace


def test_a_worker_is_healthy_only_while_it_touches_its_file(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    kind, probe = CONTAINERS["transfer"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"

    def is_healthy() -> bool:
        command = probe.replace("/tmp/alive", str(file))  # noqa: S108  # the container's own
        return (
            subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0
        )

    assert not is_healthy()
    file.touch()
    assert is_healthy()
    minute_ago = file.stat().st_mtime - 60
    os.utime(file, (minute_ago, minute_ago))
    assert not is_healthy()


@pytest.mark.parametrize("name", sorted(CONTAINERS.keys() - {service.name for service in SERVICES}))
def test_a_third_party_container_sets_known_variables_only(name: str) -> None:
    of_the_store = {variable.upper() for variable in ObjectStoreSettings.model_fields}
    known = {"create-bucket": of_the_store, **VARIABLES_OF_OTHERS}

    assert environment(name).keys() <= known.get(name, set())


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_no_privileges_and_bounded_memory_and_logs(name: str) -> None:
    container = CONTAINERS[name]

    assert int(container["user"].split(":")[0]) > 0
    assert container["cap_drop"] == ["ALL"]
    assert "cap_add" not in container
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
    assert container["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", OURS)
def test_a_container_can_write_to_its_volumes_and_tmp_only(name: str) -> None:
    assert CONTAINERS[name]["read_only"]
    assert [mount.split(":")[0] for mount in CONTAINERS[name]["tmpfs"]] == ["/tmp"]  # noqa: S108  # the container's own
    for volume in CONTAINERS[name].get("volumes", []):
        assert volume.split(":")[1] in DOCKERFILE  # where the image gives it to the user


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_service_can_have_replicas_and_has_a_health_check(name: str) -> None:
    assert "container_name" not in CONTAINERS[name]
    assert ("healthcheck" in CONTAINERS[name]) is (name not in ONE_SHOTS)


def test_every_condition_of_a_dependency_can_be_met() -> None:
    for container in CONTAINERS.values():
        for name, wait in container.get("depends_on", {}).items():
            expected = "completed_successfully" if name in ONE_SHOTS else "healthy"
            assert wait == {"condition": f"service_{expected}"}


def test_every_image_is_pinned() -> None:
    images = [container["image"] for container in CONTAINERS.values()]
    bases = re.findall(r"^ARG \w+_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)

    assert bases
    for image in (*images, *bases):
        assert PINNED.fullmatch(image), image


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for each in CONTAINERS.values() for port in each.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_store_has_the_same_address_for_containers_and_for_the_host() -> None:
    endpoint = urlsplit(environment("transfer")["S3_ENDPOINT_URL"])

    assert endpoint.hostname in CONTAINERS["store"]["networks"]["storage"]["aliases"]
    assert CONTAINERS["store"]["ports"] == [f"127.0.0.1:{endpoint.port}:{endpoint.port}"]


def test_the_file_contains_no_secret() -> None:
    secret = {"POSTGRES_PASSWORD"} | {
        settings_table.variable(name, field)
        for reader in READERS.values()
        for name, field in reader.model_fields.items()
        if field.annotation in {SecretStr, SecretStr | None}
    }

    assert secret > {"DATABASE_URL", "RABBITMQ_URL", "S3_SECRET_ACCESS_KEY", "SECRET_KEYS"}
    assert not LOGIN_IN_URL.search(TEXT)
    for name in CONTAINERS:
        assert not environment(name).keys() & secret


def test_the_script_writes_every_secret_that_compose_mounts(secrets: Path) -> None:
    files = {Path(secret["file"]) for secret in COMPOSE["secrets"].values()}

    assert {file.parent for file in files} == {Path("var/secrets")}
    assert {file.name for file in files} == {file.name for file in secrets.iterdir()} - {"complete"}
    assert {secret for name in CONTAINERS for secret in mounted_secrets(name)} < {
        *COMPOSE["secrets"]
    }


def test_existing_secrets_are_kept(secrets: Path) -> None:
    before = {file.name: file.read_text() for file in secrets.iterdir()}

    make_secrets(secrets)

    assert {file.name: file.read_text() for file in secrets.iterdir()} == before


def test_a_missing_key_is_added_to_existing_secrets(secrets: Path) -> None:
    key = secrets / "secret_keys"
    before = {file.name: file.read_text() for file in secrets.iterdir() if file != key}
    key.unlink()

    make_secrets(secrets)

    KeyRing.parse(key.read_text())
    assert {file.name: file.read_text() for file in secrets.iterdir() if file != key} == before


def test_secrets_are_random_and_hidden_from_other_users(secrets: Path, tmp_path: Path) -> None:
    others = make_secrets(tmp_path / "others")

    for name in ("postgres_password", "rabbitmq_url", "s3_secret_access_key", "secret_keys"):
        assert (secrets / name).read_text() != (others / name).read_text()
    assert secrets.stat().st_mode & 0o077 == 0


def test_both_ends_of_every_connection_have_the_same_password(secrets: Path) -> None:
    database = urlsplit((secrets / "database_url").read_text())
    broker = urlsplit((secrets / "rabbitmq_url").read_text())
    [identity] = json.loads((secrets / "s3_identities.json").read_text())["identities"]

    assert database.password == (secrets / "postgres_password").read_text()
    assert database.username == environment("postgres")["POSTGRES_USER"]
    assert database.path == f"/{environment('postgres')['POSTGRES_DB']}"
    assert f"default_user = {broker.username}" in (secrets / "rabbitmq_user.conf").read_text()
    assert f"default_pass = {broker.password}" in (secrets / "rabbitmq_user.conf").read_text()
    assert {database.hostname, broker.hostname} <= CONTAINERS.keys()
    assert identity["credentials"] == [
        {
            "accessKey": (secrets / "s3_access_key_id").read_text(),
            "secretKey": (secrets / "s3_secret_access_key").read_text(),
        }
    ]


def test_every_mounted_file_exists() -> None:
    for config in COMPOSE["configs"].values():
        assert (CHECKOUT / config["file"]).is_file()


def test_the_consumer_timeout_exceeds_the_longest_task() -> None:
    [milliseconds] = re.findall(r"^consumer_timeout = (\d+)$", RABBITMQ_CONF, re.MULTILINE)
    limit = CelerySettings.model_fields["task_time_limit"].default

    assert timedelta(milliseconds=int(milliseconds)) > limit


def test_the_build_context_has_only_the_copied_files() -> None:
    everything, *admitted = [
        line
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith(("#", "**"))
    ]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }

    assert everything == "*"
    assert {f"!{source}" for source in copied} == {*admitted}


def test_the_image_has_the_locked_wheels_and_an_unprivileged_user() -> None:
    [user] = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)

    assert "--require-hashes --only-binary :all:" in DOCKERFILE
    assert {CONTAINERS[name]["user"].split(":")[0] for name in OURS} == {user}


def test_the_image_has_the_tested_versions() -> None:
    assert pins("runtime.txt") < pins("dev.txt")
