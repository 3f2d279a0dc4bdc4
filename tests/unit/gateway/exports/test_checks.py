import pytest

from gateway.exports import checks
from gateway.http.problems import InvalidRequest
from schemas.api.exports import CreateExport, ExportFilter
from schemas.lifecycle import ExportFormat, ExportKind


@pytest.mark.parametrize(
    "request_",
    [
        CreateExport(kind=ExportKind.JOBS, filter=ExportFilter(status="completed")),
        CreateExport(kind=ExportKind.DELIVERIES, filter=ExportFilter(status="exhausted")),
        CreateExport(kind=ExportKind.ENTITIES, filter=ExportFilter(label="ORG", language="de")),
        CreateExport(kind=ExportKind.SENTENCES, format=ExportFormat.JSONL),
        CreateExport(kind=ExportKind.DOCUMENTS, bom=True, raw=True),
    ],
)
def test_a_request_within_its_kind_is_accepted(request_: CreateExport) -> None:
    checks.check(request_)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (CreateExport(kind=ExportKind.JOBS, filter=ExportFilter(language="de")), "filter.language"),
        (CreateExport(kind=ExportKind.JOBS, filter=ExportFilter(status="ingested")), "status"),
        (CreateExport(kind=ExportKind.JOBS, format=ExportFormat.JSONL, raw=True), "raw"),
    ],
)
def test_a_request_beyond_its_kind_is_refused(request_: CreateExport, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        checks.check(request_)


def test_chosen_columns_keep_their_order() -> None:
    chosen = CreateExport(kind=ExportKind.DOCUMENTS, columns=["size", "filename"])

    assert checks.columns_of(chosen) == ["size", "filename"]
