"""Runs ``python -m notifier deliver`` in a namespace where every forbidden target exists.

Broker and database stay outside. Their ports are forwarded over Unix sockets, because a namespace
shares the file system alone. The arguments are JSON: ``forwards`` maps a port on 127.0.0.1 to the
path of a socket, ``names`` a host name to its addresses, ``report`` is the file that gets the
number of connections to each address.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.integration.http.name_server import a_name_server
from tests.integration.notifier.forwarding import forward
from tests.namespaces import PUBLIC, add_addresses, listening
from tests.webhook_urls import NOT_PUBLIC


def name_servers() -> list[str]:
    lines = Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines()
    found = [line.split()[1] for line in lines if line.startswith("nameserver ")]
    return found or ["127.0.0.1"]


async def run(
    *, forwards: dict[str, str], names: dict[str, list[str]], accepted: Counter[str]
) -> int:
    # `deliver` asks the name servers of the system.
    servers = name_servers()
    add_addresses({PUBLIC, *NOT_PUBLIC, *servers})
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(listening(accepted))
        for server in servers:
            await stack.enter_async_context(a_name_server(names.get, host=server, port=53))
        for port, path in forwards.items():
            await stack.enter_async_context(forward(int(port), to=Path(path)))
        deliver = await asyncio.create_subprocess_exec(sys.executable, "-m", "notifier", "deliver")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, deliver.terminate)
        return await deliver.wait()


def main() -> int:
    options: dict[str, Any] = json.loads(sys.argv[1])
    accepted: Counter[str] = Counter()
    code = asyncio.run(run(forwards=options["forwards"], names=options["names"], accepted=accepted))
    Path(options["report"]).write_text(json.dumps(accepted), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
