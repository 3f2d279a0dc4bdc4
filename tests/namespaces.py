"""A network namespace in which every target exists that webhooks must not reach."""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

COMMAND: Final = ("unshare", "--net", "--map-root-user")
"""Runs a program in a namespace of its own, with nothing but an interface for loopback."""

PUBLIC: Final = "93.184.216.34"
PORTS: Final = (80, 443, 8080, 9000)


def unavailable() -> str | None:
    """Return why there can be no namespace."""
    if shutil.which("ip") is None:
        return "there is no program `ip`"
    tried = subprocess.run([*COMMAND, "true"], check=False, capture_output=True, text=True)
    return f"network namespaces are not permitted: {tried.stderr}" if tried.returncode else None


def add_addresses(addresses: Iterable[str]) -> int:
    """Give this namespace the addresses; return how many the kernel accepts."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    added = 0
    for address in addresses:
        command = ["ip", "address", "add", address.partition("%")[0], "dev", "lo"]
        added += subprocess.run(command, check=False, capture_output=True).returncode == 0
    return added


@asynccontextmanager
async def listening(accepted: Counter[str]) -> AsyncIterator[None]:
    """Answer 204 at every address; count the connections to each in `accepted`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted[writer.get_extra_info("sockname")[0]] += 1
        await reader.read(65536)
        # The next attempt must look the name up again.
        writer.write(b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n")
        writer.close()

    async with AsyncExitStack() as stack:
        for port in PORTS:
            await stack.enter_async_context(
                await asyncio.start_server(answer, ["0.0.0.0", "::"], port)  # noqa: S104
            )
        yield
