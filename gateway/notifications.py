"""The notifications of the database, on one connection for all channels of the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.runtime import postgres


class Notifications:
    """Passes the notifications of each channel to its subscriber, on one connection.

    A notification comes after the commit that sent it, so its subscriber reads what was committed.
    Notifications are lost while the connection is down.
    """

    def __init__(self, connect: postgres.Connect) -> None:
        self._connect = connect
        self._subscribers: dict[str, postgres.Notify] = {}
        self.is_listening = False

    def subscribe(self, channel: str, notify: postgres.Notify) -> None:
        """Pass the payloads of a channel to `notify`, and None after each connect.

        Subscribe before `listening`; `notify` must not block.
        """
        self._subscribers[channel] = notify

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends; reconnect when the connection is lost."""
        listener = asyncio.create_task(
            postgres.listen(
                self._connect, self._subscribers, connected=self._set_connected, lost=self._set_lost
            ),
            name="notifications",
        )
        try:
            yield
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def _set_connected(self) -> None:
        self.is_listening = True

    def _set_lost(self) -> None:
        self.is_listening = False
