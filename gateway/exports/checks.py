"""Which columns and filters a request may name."""

from collections.abc import Sequence

import msgspec

from gateway.http.problems import InvalidRequest
from schemas.api.exports import CreateExport
from schemas.lifecycle import ExportFormat
from schemas.tables.export_kinds import KINDS


def check(request: CreateExport) -> None:
    """Check a request against its kind.

    Raises:
        InvalidRequest: the kind has no such column or filter, or an option is of another format.
    """
    kind = KINDS[request.kind]
    for name in msgspec.to_builtins(request.filter):
        if name not in kind.filters:
            known = ", ".join(kind.filters)
            raise InvalidRequest(
                f"is no filter of {request.kind}; these are {known}", field=f"filter.{name}"
            )
    status = request.filter.status
    if status is not None and kind.statuses is not None and status not in set(kind.statuses):
        raise InvalidRequest(f"is none of {', '.join(kind.statuses)}", field="filter.status")
    if request.format is not ExportFormat.CSV and (request.bom or request.raw):
        raise InvalidRequest("is only for csv", field="bom" if request.bom else "raw")


def columns_of(request: CreateExport) -> Sequence[str]:
    """Return the columns of the file, in their order.

    Raises:
        InvalidRequest: the kind has no such column, or it is named twice.
    """
    known = [column.name for column in KINDS[request.kind].columns]
    if not request.columns:
        return known
    for name in request.columns:
        if name not in known:
            raise InvalidRequest(
                f"{request.kind} have no column {name!r}; these are {', '.join(known)}",
                field="columns",
            )
    if len(set(request.columns)) < len(request.columns):
        raise InvalidRequest("name a column twice", field="columns")
    return request.columns
