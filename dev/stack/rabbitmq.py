"""A private RabbitMQ node from the distribution's package, with its own port mapper."""

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from dev.stack import environment, readiness
from dev.stack.errors import ProgramMissing
from dev.stack.identity import USER
from dev.stack.specification import ProcessSpec
from dev.stack.supervisor import Supervisor

# /usr/sbin/rabbitmq-server is a wrapper that switches to the user of the system's node.
SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_STATISTICS: Final = "rabbit_event, rabbit_mgmt_db_handler"
TICK_MAX: Final = timedelta(minutes=1)
"""RabbitMQ's default interval between checks for unacknowledged messages."""
REMEDY: Final = "apt-get install --no-install-recommends rabbitmq-server (or set RABBITMQ_URL)"


@dataclass(frozen=True, kw_only=True)
class RabbitMq:
    home: Path
    node_name: str
    password: str
    erlang_cookie: str
    ports: Mapping[str, int]
    consumer_timeout: timedelta
    """A message unacknowledged for longer is delivered again."""
    marker: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        login = f"{USER}:{self.password}@127.0.0.1"
        return {
            "RABBITMQ_URL": f"amqp://{login}:{self.ports['amqp']}/%2F",
            "RABBITMQ_MANAGEMENT_URL": f"http://{login}:{self.ports['management']}",
        }

    async def bring_up(self, supervisor: Supervisor) -> None:
        port_mapper = shutil.which("epmd")
        if not SERVER.exists() or port_mapper is None:
            raise ProgramMissing("RabbitMQ", remedy=REMEDY)
        self._write_files()
        await supervisor.start(self._port_mapper(port_mapper))
        await supervisor.start(self._node())

    def configuration(self) -> str:
        milliseconds = int(self.consumer_timeout / timedelta(milliseconds=1))
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.ports['amqp']}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": self.ports["management"],
            "prometheus.tcp.ip": "127.0.0.1",
            "prometheus.tcp.port": self.ports["prometheus"],
            "default_user": USER,
            "default_pass": self.password,
            "default_user_tags.administrator": "true",
            "disk_free_limit.absolute": "256MB",
            "vm_memory_high_watermark.absolute": "1GB",
            "consumer_timeout": milliseconds,
            "log.console": "true",
            "log.console.use_colors": "off",
            "log.file": "false",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def advanced_configuration(self) -> str:
        """Return the settings that the plain file cannot hold, as an Erlang term.

        The timeout is checked at each tick, so a short timeout needs short ticks.
        """
        tick = min(TICK_MAX, self.consumer_timeout / 6)
        milliseconds = tick // timedelta(milliseconds=1)
        return f"[{{rabbit, [{{channel_tick_interval, {milliseconds}}}]}}].\n"

    def node_environment(self) -> dict[str, str]:
        directory = self.home
        return {
            "HOME": str(directory / "home"),
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "schema"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # The script replaces itself by the Erlang machine, so that the supervised pid is the
            # broker's; the script itself would add -noinput.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput",
            # Without it, the distribution port listens on every address. The Erlang machines that
            # the node starts to call the port mapper read it too.
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _write_files(self) -> None:
        for name in ("home", "mnesia", "log", "schema"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "rabbitmq.conf").write_text(self.configuration())
        (self.home / "rabbitmq.conf").chmod(0o600)
        (self.home / "advanced.config").write_text(self.advanced_configuration())
        (self.home / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_prometheus].\n")
        cookie = self.home / "home" / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.touch(mode=0o600)
        cookie.write_text(self.erlang_cookie)
        cookie.chmod(0o400)

    def _port_mapper(self, program: str) -> ProcessSpec:
        """Run the port mapper in the foreground: the node would start it as a daemon."""
        port = self.ports["epmd"]
        return ProcessSpec(
            name="epmd",
            command=(program, "-port", str(port), "-address", "127.0.0.1"),
            environment=environment.of_infrastructure() | self.marker,
            directory=self.home,
            is_ready=readiness.port_open(port),
        )

    def _node(self) -> ProcessSpec:
        return ProcessSpec(
            name="rabbitmq",
            command=(str(SERVER),),
            environment=self._process_environment(),
            directory=self.home,
            is_ready=self._answers,
            before_stop=self._detach_statistics,
            stop_grace=timedelta(seconds=30),
        )

    async def _detach_statistics(self) -> None:
        """Remove the management plugin's statistics before the node stops.

        On removal they change a setting of the node. In a node that is stopping, that change
        blocks for five seconds.
        """
        call = f"rpc:call('{self.node_name}', gen_event, delete_handler, [{_STATISTICS}, []], 3000)"
        detaching = await asyncio.create_subprocess_exec(
            *("erl", "-noinput", "-sname", f"stop-{self.node_name}"),
            *("-eval", f"{call}, halt()."),
            env=self._process_environment(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await detaching.wait()

    def _process_environment(self) -> dict[str, str]:
        return environment.of_infrastructure() | self.node_environment() | self.marker

    async def _answers(self, _: datetime) -> bool:
        return await readiness.listens(self.ports["amqp"]) and await readiness.answers_ok(
            self.ports["management"], "/api/overview", user=USER, password=self.password
        )
