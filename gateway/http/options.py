"""`OPTIONS`: the methods that a path supports (RFC 9110, 9.3.7)."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.routes import HTTPRoute


async def answer_options(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Answer an OPTIONS request; return None for other methods.

    Litestar's own answer lists only the methods of the handler registered first on a path.
    """
    if request.method != "OPTIONS":
        return None
    methods = {
        str(method)
        for route in request.app.routes
        if isinstance(route, HTTPRoute) and route.path_format == request.scope["path_template"]
        for method in route.methods
    }
    return Response(
        None, status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(sorted(methods))}
    )
