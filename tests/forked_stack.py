"""Starts the processes of a stack as forks of processes that have imported their modules."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import IO, Final

from dev.stack.execution import Child, Executed
from dev.stack.specification import ProcessSpec
from tests.forked_process import fork

SERVICE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "alembic": ("alembic.__main__",),
    "waybill": ("gateway.administration.cli",),
    "waybill-gateway": ("gateway",),
    "waybill-relay": ("notifier", "relay"),
    "waybill-deliver": ("notifier", "deliver"),
    "waybill-worker": ("pipeline", "worker"),
    "waybill-beat": ("pipeline", "beat"),
}
"""What `python -m` runs instead of each program, with its first argument."""


class Forked(Executed):
    """Forks Waybill's processes, and executes all other programs.

    A fork takes a hundredth of the CPU time that Python and the imports of a service take. The forked
    processes have the environment, the arguments and the session of executed ones.
    """

    async def start(self, spec: ProcessSpec, *, log: IO[bytes]) -> Child:
        program, *arguments = spec.command
        service = SERVICE_OF.get(program)
        if service is None:
            return await super().start(spec, log=log)
        return await fork(
            *service,
            *arguments,
            environment=spec.environment,
            out=log.fileno(),
            err=log.fileno(),
        )

    async def run(
        self, command: Sequence[str], *, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        service = SERVICE_OF.get(program)
        if service is None:
            return await super().run(command, environment=environment)
        with TemporaryFile() as out, TemporaryFile() as err:
            process = await fork(
                *service, *arguments, environment=environment, out=out.fileno(), err=err.fileno()
            )
            exit_code = await process.wait()
            stdout, stderr = await asyncio.to_thread(_read, out, err)
        return subprocess.CompletedProcess(command, exit_code, stdout, stderr)


def _read(*files: IO[bytes]) -> list[str]:
    for file in files:
        file.seek(0)
    return [file.read().decode() for file in files]
