"""Posts to every forbidden target in a network where all of them exist.

Run in a network namespace of its own, whose loopback interface gets the addresses of every
target. Prints, as JSON, the addresses that accepted a connection, and the outcomes.
"""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import Final

from notifier.http.dns import CachingResolver, open_lookup
from tests.integration.http.conftest import Sender, a_sender
from tests.integration.http.name_server import a_name_server
from tests.webhook_urls import LOOPBACK, NOT_PUBLIC, REFUSED

PUBLIC: Final = "93.184.216.34"
PORTS: Final = (80, 443, 8080, 9000)
REBINDINGS: Final = 200


class Listeners:
    """Accept connections to every address, and record the address."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted[writer.get_extra_info("sockname")[0]] += 1
        await reader.read(65536)
        # The next attempt must look the name up again.
        writer.write(b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n")
        writer.close()


def add_addresses() -> int:
    """Give the loopback interface the addresses; return how many the system accepts."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    added = 0
    for address in {PUBLIC, *NOT_PUBLIC}:
        command = ["ip", "address", "add", address.partition("%")[0], "dev", "lo"]
        added += subprocess.run(command, check=False, capture_output=True).returncode == 0
    return added


async def post_to_all(sender: Sender) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    urls = [url for url, _ in REFUSED] + LOOPBACK
    for number, address in enumerate(NOT_PUBLIC):
        urls += [f"http://n{number}.example:{port}/" for port in PORTS]
        parsed = ip_address(address)
        urls.append(f"http://[{parsed}]:8080/" if parsed.version == 6 else f"http://{parsed}:8080/")
    urls += ["http://rebind.example:8080/"] * REBINDINGS
    for url in urls:
        outcomes[(await sender.post(url)).outcome] += 1
    return outcomes


async def main() -> None:
    added = add_addresses()
    turn = 0

    def answers(name: str) -> Sequence[str]:
        nonlocal turn
        label = name.partition(".")[0]
        if label == "rebind":
            turn += 1
            return [PUBLIC] if turn % 3 else ["127.0.0.1"]
        return [NOT_PUBLIC[int(label[1:])].partition("%")[0]] if label[1:].isdigit() else []

    listeners = Listeners()
    async with AsyncExitStack() as stack:
        for port in PORTS:
            await stack.enter_async_context(
                await asyncio.start_server(listeners.answer, ["0.0.0.0", "::"], port)  # noqa: S104
            )
        server = await stack.enter_async_context(a_name_server(answers))
        look_up = await stack.enter_async_context(open_lookup(servers=[server.address]))
        sender = await stack.enter_async_context(
            a_sender(allow_loopback=False, resolve=CachingResolver(look_up))
        )
        outcomes = await post_to_all(sender)
    print(json.dumps({"added": added, "accepted": listeners.accepted, "outcomes": outcomes}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
