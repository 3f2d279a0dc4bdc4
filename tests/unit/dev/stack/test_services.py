from itertools import pairwise
from pathlib import Path

from dev.stack import services
from dev.stack.services import SERVICES, Readiness

ENVIRONMENT = {"GATEWAY_PORT": "8000", "LOG_LEVEL": "INFO"}


def test_every_long_running_process_is_in_the_table_once() -> None:
    assert [service.name for service in SERVICES] == [
        "gateway",
        "relay",
        "deliver",
        "transfer",
        "ingest",
        "metadata",
        "batch",
        "ocr",
        "index",
        "exports",
        "beat",
    ]


def test_a_service_without_http_has_a_liveness_file() -> None:
    for service in SERVICES:
        spec = services.specification(service, environment=ENVIRONMENT, state_dir=Path("/var"))

        touched = spec.environment.get("LIVENESS_FILE")
        if service.readiness is Readiness.LIVENESS_FILE:
            assert touched == f"/var/liveness/{service.name}"
        else:
            assert touched is None
        assert spec.environment["LOG_LEVEL"] == "INFO"


def test_workers_have_time_to_finish_a_task() -> None:
    grace = {service.name: service.stop_grace.total_seconds() for service in SERVICES}

    assert grace["transfer"] >= 60
    assert grace["ingest"] >= 60
    assert grace["batch"] >= 60
    assert grace["ocr"] >= 60
    assert grace["index"] >= 60
    assert grace["exports"] >= 60


def test_the_workers_consume_every_queue() -> None:
    taken = {
        queue
        for service in SERVICES
        for option, queues in pairwise(service.command)
        if option == "--queues"
        for queue in queues.split(",")
    }

    assert taken == {
        "uploads",
        "maintenance",
        "document_processing",
        "metadata_extraction",
        "batch_processing",
        "ocr_processing",
        "search_indexing",
        "search_maintenance",
        "exports",
    }
