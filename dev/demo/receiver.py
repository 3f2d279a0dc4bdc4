"""A webhook receiver: a POST handler and the secret."""

from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook, WebhookVerificationError


class Verified(NamedTuple):
    event: dict[str, Any]
    signature: str
    at: datetime


class WebhookReceiver:
    """Listens on a free loopback port; keeps deliveries with a valid signature, refuses others."""

    def __init__(self) -> None:
        self._verified: Queue[Verified] = Queue()
        self._secret: str | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver._take(body, dict(self.headers.items())))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def trust(self, secret: str) -> None:
        """Accept deliveries signed with this secret."""
        self._secret = secret

    def wait_for(self, event_type: str, *, subject: str, timeout: timedelta) -> Verified:
        """Return the verified webhook for this upload or document.

        Raises:
            TimeoutError: none arrived in time.
        """
        deadline = datetime.now(UTC) + timeout
        while True:
            left = (deadline - datetime.now(UTC)).total_seconds()
            try:
                verified = self._verified.get(timeout=max(0.0, left))
            except Empty:
                raise TimeoutError(f"no verified {event_type} within {timeout}") from None
            if verified.event["type"] == event_type and subject in {
                verified.event["data"].get("upload_id"),
                verified.event["data"].get("document_id"),
            }:
                return verified

    def _take(self, body: bytes, headers: dict[str, str]) -> int:
        if self._secret is None:
            return 503
        lowered = {name.lower(): value for name, value in headers.items()}
        try:
            event = Webhook(self._secret).verify(body, lowered)
        except WebhookVerificationError:
            return 400
        self._verified.put(
            Verified(event=event, signature=lowered["webhook-signature"], at=datetime.now(UTC))
        )
        return 204
