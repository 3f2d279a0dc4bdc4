"""`HEAD` wherever `GET` is (RFC 9110, section 9.1)."""

from copy import copy

from litestar.plugins import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute


class HeadWhereGetIs(ReceiveRoutePlugin):
    """Sends HEAD requests to the handlers of GET.

    The server drops the body and waits for nothing, see `gateway.http.exchange`. The API description
    lists only GET.
    """

    def receive_route(self, route: BaseRoute) -> None:
        if isinstance(route, HTTPRoute) and "GET" in route.route_handler_map:
            handler, parameters = route.route_handler_map["GET"]
            undescribed = copy(handler)
            # The attribute without the underscore was resolved when the handler was registered.
            undescribed._resolved_include_in_schema = False  # noqa: SLF001
            route.route_handler_map["HEAD"] = (undescribed, parameters)
            route.methods.add("HEAD")
