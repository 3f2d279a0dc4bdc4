"""Why a request has no answer. Messages are safe to show to the owner of the target."""


class RequestRefused(ValueError):
    """A request cannot be sent as it is; a fault of the caller."""


class NoAnswer(Exception):
    """A request has no answer."""


class NameUnresolved(NoAnswer):
    def __init__(self, reason: str) -> None:
        super().__init__(f"the host name does not resolve: {reason}")


class ReceiverUnreachable(NoAnswer):
    def __init__(self, reason: str) -> None:
        super().__init__(f"no connection: {reason}")


class TlsFailed(NoAnswer):
    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS failed: {reason}")


class ConnectionBroken(NoAnswer):
    """The connection ended before the answer.

    Attributes:
        heard: whether a byte of the answer had arrived.
    """

    def __init__(self, *, heard: bool) -> None:
        super().__init__("the connection broke")
        self.heard = heard


class AnswerRefused(NoAnswer):
    """The bytes are no HTTP/1.1 answer, or exceed a bound."""
