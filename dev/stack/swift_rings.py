"""Builds the rings of a Swift cluster with one disk. Runs inside Swift's own environment.

Arguments are a directory and the port of each storage server::

    python -m dev.stack.swift_rings DIRECTORY account=6202 container=6201 object=6200
"""

import sys
from pathlib import Path

from swift.common.ring import RingBuilder  # type: ignore[import-not-found]  # not in this environment


def build(directory: Path, *, kind: str, port: int) -> None:
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev(
        {
            "id": 0,
            "region": 1,
            "zone": 1,
            "ip": "127.0.0.1",
            "port": port,
            "device": "disk",
            "weight": 1.0,
        }
    )
    builder.rebalance(seed="0")
    builder.get_ring().save(str(directory / f"{kind}.ring.gz"))


def main(directory: str, *servers: str) -> None:
    for server in servers:
        kind, _, port = server.partition("=")
        build(Path(directory), kind=kind, port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
