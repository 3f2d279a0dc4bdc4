"""PostgreSQL, RabbitMQ and an S3 store as containers of the images in `compose.yaml`.

Used where a container engine answers; elsewhere the local stack starts the same services
as processes. Ports are chosen before the start, so that a killed container comes back under
the same address.
"""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import docker
import yaml
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from dev.stack import ports
from tests.killable import Killable, await_listener

COMPOSE: Final = Path(__file__).parent.parent / "compose.yaml"
LOOPBACK: Final = "127.0.0.1"
DEFAULT_ENGINE: Final = "unix:///var/run/docker.sock"


def engine_answers() -> bool:
    return _accepts_connections() and _pings()


def _accepts_connections() -> bool:
    # The Docker library leaks a socket when no engine listens, and warnings are errors here.
    address = urlsplit(docker.utils.kwargs_from_env().get("base_url", DEFAULT_ENGINE))
    family = socket.AF_UNIX if address.scheme in {"unix", "http+unix"} else socket.AF_INET
    target = address.path if family is socket.AF_UNIX else (address.hostname, address.port)
    with socket.socket(family) as probe:
        probe.settimeout(5)
        try:
            probe.connect(target)
        except OSError:
            return False
    return True


def _pings() -> bool:
    try:
        with closing(docker.from_env(timeout=5)) as client:
            return bool(client.ping())
    except DockerException:
        return False


class KillableContainer(Killable):
    """A container that keeps its data when it is killed and started again."""

    def __init__(self, container: DockerContainer, *, port: int) -> None:
        self._container = container
        self._port = port

    def kill(self) -> None:
        self.halt()
        self.start()

    def halt(self) -> None:
        self._container.get_wrapped_container().kill("SIGKILL")

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        await_listener(LOOPBACK, self._port)


@contextmanager
def started() -> Iterator[tuple[dict[str, str], dict[str, Killable]]]:
    """Yield the settings that reach the services, and the containers by name."""
    images = {
        name: service["image"]
        for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items()
        if "image" in service
    }
    password = secrets.token_hex(16)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        postgres, amqp, management, s3 = ports.choose(
            ("postgres", "amqp", "management", "s3"),
            preferred={},
            is_free=ports.is_free,
            random_below=secrets.randbelow,
        ).values()
        containers = {
            "postgres": _bound(images["postgres"], {5432: postgres}).with_envs(
                POSTGRES_USER="waybill", POSTGRES_DB="waybill", POSTGRES_PASSWORD=password
            ),
            "rabbitmq": _bound(images["rabbitmq"], {5672: amqp, 15672: management})
            .with_envs(RABBITMQ_DEFAULT_USER="waybill", RABBITMQ_DEFAULT_PASS=password)
            # RabbitMQ finds its data by the host name.
            .with_kwargs(hostname="rabbitmq"),
            "store": _store(images["store"], port=s3, password=password, scratch=scratch),
        }
        for container in containers.values():
            stack.enter_context(container)
        for port in (postgres, amqp, management, s3):
            await_listener(LOOPBACK, port)
        settings = {
            "DATABASE_URL": f"postgresql+psycopg://waybill:{password}@{LOOPBACK}:{postgres}/waybill",
            "RABBITMQ_URL": f"amqp://waybill:{password}@{LOOPBACK}:{amqp}/%2F",
            "RABBITMQ_MANAGEMENT_URL": f"http://waybill:{password}@{LOOPBACK}:{management}",
            "S3_ENDPOINT_URL": f"http://{LOOPBACK}:{s3}",
            "S3_BUCKET": "waybill",
            "S3_ACCESS_KEY_ID": "waybill",
            "S3_SECRET_ACCESS_KEY": password,
        }
        main_port = {"postgres": postgres, "rabbitmq": amqp, "store": s3}
        yield (
            settings,
            {
                name: KillableContainer(container, port=main_port[name])
                for name, container in containers.items()
            },
        )


def _bound(image: str, published: dict[int, int]) -> DockerContainer:
    container = DockerContainer(image)
    for inside, outside in published.items():
        container = container.with_bind_ports(inside, outside)
    return container


def _store(image: str, *, port: int, password: str, scratch: Path) -> DockerContainer:
    identities: dict[str, Any] = {
        "identities": [
            {
                "name": "waybill",
                "credentials": [{"accessKey": "waybill", "secretKey": password}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
        ],
    }
    file = scratch / "identities.json"
    file.write_text(json.dumps(identities))
    file.chmod(0o644)  # the container runs as another user
    return (
        _bound(image, {8333: port})
        .with_volume_mapping(str(file), "/etc/identities.json", "ro")
        .with_command(
            "server -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3 -s3.ip.bind=0.0.0.0"
            " -s3.config=/etc/identities.json -s3.iam=false -master.telemetry=false"
        )
    )
