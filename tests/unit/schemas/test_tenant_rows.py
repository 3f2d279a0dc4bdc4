"""Which rows a tenant has, and the order of their deletion."""

from uuid import UUID

import pytest
from sqlalchemy import Table

from schemas import object_keys, staging_layout
from schemas.ids import TenantId, UploadId
from schemas.tables import Base, tenant_rows

TABLES = Base.metadata.tables

LARGE = (
    *("attempts", "chunks", "deliveries", "documents", "entities", "events", "idempotent_requests"),
    *("inbox", "jobs", "pages", "passage_embeddings", "passages", "steps", "uploads", "webhooks"),
)
"""Tables of which one tenant may have millions of rows."""

TENANT = TenantId(UUID(int=1))


def test_every_table_has_rows_of_tenants_or_is_declared_to_have_none() -> None:
    names = {table.name for table in tenant_rows.tables()}

    assert names | tenant_rows.WITHOUT_TENANT == set(TABLES)
    assert not names & tenant_rows.WITHOUT_TENANT


@pytest.mark.parametrize("table", tenant_rows.tables(), ids=lambda table: table.name)
def test_the_rows_of_a_tenant_are_found_in_every_table(table: Table) -> None:
    # Raises for a table without a column that leads to a tenant.
    assert table.name in str(tenant_rows.count(table, TENANT))


def reached(table: Table) -> list[Table]:
    """Return a table and those whose rows are deleted with its rows, in the order of the deletion."""
    below = [each for link in tenant_rows.links_to(table) for each in reached(link.column.table)]
    return [*below, table]


def test_every_row_is_deleted_before_a_row_that_it_refers_to() -> None:
    order = [each for root in tenant_rows.roots() for each in reached(root)]
    last = {table: position for position, table in enumerate(order)}

    assert {table.name for table in order} == {table.name for table in tenant_rows.tables()[:-1]}
    for table in order:
        for key in table.foreign_keys:
            if key.column.table is not TABLES["tenants"] and key.ondelete is None:
                assert last[table] < last[key.column.table], f"{table.name}.{key.parent.name}"


def test_a_row_whose_own_rows_are_deleted_has_one_column_as_its_key() -> None:
    for link in tenant_rows.links():
        assert list(link.parent.table.primary_key.columns) == [link.parent]


@pytest.mark.parametrize("name", LARGE)
def test_an_index_has_the_rows_of_a_large_table_in_a_total_order(name: str) -> None:
    table = TABLES[name]
    columns = [link.column for link in tenant_rows.links() if link.column.table is table]

    for column in columns or [table.c.tenant_id]:
        if name == "inbox":
            # A condition on the consumer makes its key usable.
            continue
        assert tenant_rows.order_by(table, column), f"{name}.{column.name}"


def test_every_prefix_of_the_bucket_belongs_to_the_deletion_of_a_tenant() -> None:
    declared = {
        value
        for module in (object_keys, staging_layout)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and value.endswith("/")
    }
    of_tenant = {
        prefix.removesuffix(f"{TENANT}/")
        for prefix in (*object_keys.of_tenant(TENANT), staging_layout.of_tenant(TENANT))
    }

    # The images of a document are found by its upload, and probes belong to no tenant.
    assert declared == of_tenant | {object_keys.DERIVED, staging_layout.PROBES}


def test_the_keys_of_a_tenant_are_under_its_prefixes() -> None:
    upload_id = UploadId(TENANT)
    keys = (
        object_keys.original(TENANT, upload_id),
        object_keys.incoming(TENANT),
        staging_layout.chunk_key(TENANT, upload_id, index=0, sha256=bytes(32)),
    )

    prefixes = (*object_keys.of_tenant(TENANT), staging_layout.of_tenant(TENANT))
    assert all(key.startswith(tuple(prefixes)) for key in keys)
