"""``python -m notifier relay`` and ``python -m notifier deliver``."""

import argparse

from notifier import app, settings

COMMANDS = {"relay": app.run_relay, "deliver": app.run_deliver}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m notifier", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("relay", help="publish the outbox to RabbitMQ")
    commands.add_parser("deliver", help="deliver events to webhooks")
    command = COMMANDS[parser.parse_args().command]
    command(settings.load())


if __name__ == "__main__":
    main()
