"""Posts to every forbidden target in a namespace where all of them exist.

Prints, as JSON, the addresses that accepted a connection, and the outcomes.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from notifier.http.dns import CachingResolver, open_lookup
from tests.integration.http.conftest import Sender, a_sender
from tests.integration.http.name_server import a_name_server
from tests.namespaces import PORTS, PUBLIC, add_addresses, listening
from tests.webhook_urls import LOOPBACK, NOT_PUBLIC, REFUSED

REBINDINGS: Final = 200


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
    added = add_addresses({PUBLIC, *NOT_PUBLIC})
    accepted: Counter[str] = Counter()
    turn = 0

    def answers(name: str) -> Sequence[str]:
        nonlocal turn
        label = name.partition(".")[0]
        if label == "rebind":
            turn += 1
            return [PUBLIC] if turn % 3 else ["127.0.0.1"]
        return [NOT_PUBLIC[int(label[1:])].partition("%")[0]] if label[1:].isdigit() else []

    async with (
        listening(accepted),
        a_name_server(answers) as server,
        open_lookup(servers=[server.address]) as look_up,
        a_sender(allow_loopback=False, resolve=CachingResolver(look_up)) as sender,
    ):
        outcomes = await post_to_all(sender)
    print(json.dumps({"added": added, "accepted": accepted, "outcomes": outcomes}))  # noqa: T201  # the report


if __name__ == "__main__":
    asyncio.run(main())
