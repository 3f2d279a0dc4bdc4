"""The local stack: `python -m dev.stack up | down | status | logs | psql | exec`."""

import argparse
import sys
from pathlib import Path

from dev.stack import commands, programs
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import StackError
from dev.stack.services import SERVICES


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description=__doc__)
    parser.add_argument(
        "--state-dir", type=Path, default=CHECKOUT / "var", help="data, logs and secrets (var/)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and wait until it is ready")
    which = up.add_mutually_exclusive_group()
    which.add_argument(
        "--infrastructure-only",
        action="store_true",
        help="start PostgreSQL, RabbitMQ and the object store without the services",
    )
    which.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[service.name for service in SERVICES],
        help="leave this service out; repeatable",
    )
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="list the processes")
    logs = commands.add_parser("logs", help="follow the logs")
    logs.add_argument("names", nargs="*", metavar="NAME", help="a process; all without it")
    psql = commands.add_parser("psql", help="open the database")
    psql.add_argument("arguments", nargs=argparse.REMAINDER)
    program = commands.add_parser("exec", help="run a program with the settings of the stack")
    program.add_argument("arguments", nargs=argparse.REMAINDER, metavar="PROGRAM …")
    return parser


def main() -> int:
    arguments = parser().parse_args()
    state_dir: Path = arguments.state_dir.resolve()
    try:
        match arguments.command:
            case "up" if arguments.infrastructure_only:
                return commands.up(state_dir, services=())
            case "up":
                names = [each.name for each in SERVICES if each.name not in arguments.without]
                return commands.up(state_dir, services=names)
            case "down":
                return commands.down(state_dir)
            case "status":
                return commands.status(state_dir)
            case "logs":
                programs.follow_logs(state_dir, arguments.names)
            case "psql":
                programs.psql(state_dir, arguments.arguments)
            case _:
                programs.run(state_dir, arguments.arguments)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
