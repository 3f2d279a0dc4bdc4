"""`python -m notifier relay | deliver`; `waybill-relay` and `waybill-deliver` do the same."""

import argparse

from notifier import app
from notifier.settings import DeliverSettings, Settings


def relay() -> None:
    """Publish the outbox to RabbitMQ until SIGTERM."""
    app.run_relay(Settings.load())


def deliver() -> None:
    """Deliver events to webhooks until SIGTERM."""
    app.run_deliver(DeliverSettings.load())


COMMANDS = {"relay": relay, "deliver": deliver}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m notifier", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__)
    COMMANDS[parser.parse_args().command]()


if __name__ == "__main__":
    main()
