import pytest

from dev.seed import load, statements
from schemas.tables import Base

# A password is a secret, and is deleted when its job ends.
NOT_SEEDED = {
    "api_keys",
    "audit_log",
    "checked_events",
    "deliverers",
    "document_passwords",
    "embedding_models",
    "engines",
    "fan_outs",
    "passage_embeddings",
    "passages",
    "tenant_deletions",
}
WITHOUT_TENANT = {"audit_log", "checked_events", "deliverers", "embedding_models", "engines"}
TABLES = Base.metadata.tables


def test_every_table_is_seeded() -> None:
    assert statements.TABLES.keys() == TABLES.keys() - NOT_SEEDED


def test_every_table_of_a_tenant_is_emptied_by_the_removal() -> None:
    assert load.removals().keys() == TABLES.keys() - WITHOUT_TENANT


def test_the_removal_deletes_a_row_before_the_row_that_it_belongs_to() -> None:
    order = list(load.removals())

    assert order[-1] == "tenants"
    for child, parent in (("chunks", "uploads"), ("attempts", "deliveries"), ("outbox", "events")):
        assert order.index(child) < order.index(parent)


@pytest.mark.parametrize("table", ["page_images", "figure_images"])
def test_rows_without_a_tenant_are_removed_by_a_key_that_each_of_them_has(table: str) -> None:
    assert f"{table}.revision_id IN" in str(load.removals()[table])
