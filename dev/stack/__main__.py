"""``python -m dev.stack up | down | status``."""

import argparse
import sys
from pathlib import Path

from dev.stack import commands
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import StackError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description=__doc__)
    parser.add_argument(
        "--state-dir", type=Path, default=CHECKOUT / "var", help="data, logs and secrets (var/)"
    )
    subcommands = parser.add_subparsers(dest="command", required=True)
    up = subcommands.add_parser("up", help="start everything and wait until it is ready")
    up.add_argument(
        "--infrastructure-only",
        action="store_true",
        help="start PostgreSQL, RabbitMQ and the object store without the services",
    )
    subcommands.add_parser("down", help="stop everything")
    subcommands.add_parser("status", help="list the processes")
    arguments = parser.parse_args()
    state_dir: Path = arguments.state_dir.resolve()
    try:
        match arguments.command:
            case "up":
                return commands.up(state_dir, with_services=not arguments.infrastructure_only)
            case "down":
                return commands.down(state_dir)
            case _:
                return commands.status(state_dir)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
