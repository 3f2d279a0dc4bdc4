"""The statements of a search read each passage of the tenant at most once, and no other tenant's."""

import pytest
from sqlalchemy import text

from tests.integration.gateway.api import Api, BeginSession
from tests.plans import recorded

pytestmark = pytest.mark.anyio

DOCUMENTS, PAGES = 200, 10
OF_TENANT = DOCUMENTS * PAGES

WORDS, NEWEST = "ix_passages_search", "ix_documents_tenant"

SEED = (
    """
    CREATE TEMP TABLE seeded ON COMMIT DROP AS
    SELECT tenants.id AS tenant_id, gen_random_uuid() AS id
    FROM tenants CROSS JOIN generate_series(1, :documents)
    """,
    """
    INSERT INTO uploads (id, tenant_id, status, filename, size, chunk_size, chunk_count, expires_at)
    SELECT id, tenant_id, 'stored', 'a.pdf', 1, 1, 1, now() FROM seeded
    """,
    """
    INSERT INTO documents (id, tenant_id, upload_id, job_id, status, revision_id, filename,
        content_type, size, sha256, object_key, etag)
    SELECT id, tenant_id, id, id, 'ingested', id, 'a.pdf', 'application/pdf', 1, '0', 'k', 'e'
    FROM seeded
    """,
    """
    INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state)
    SELECT id, id, tenant_id, id, 1, '1', 'published' FROM seeded
    """,
    """
    INSERT INTO pages (revision_id, number, status, outcome, text)
    SELECT id, page, 'read', 'complete', '' FROM seeded CROSS JOIN generate_series(1, :pages) AS page
    """,
    """
    INSERT INTO passages (revision_id, page, ordinal, tenant_id, document_id, kind, start, "end",
        language, digest, tokens, search)
    SELECT id, page, 0, tenant_id, id, 'text', 0, 0, 'en', gen_random_uuid(), 20,
        setweight(to_tsvector('simple', 'common word ' || page), 'A')
        || array_to_tsvector(ARRAY['#t:' || replace(tenant_id::text, '-', ''), '#k:text'])
    FROM seeded CROSS JOIN generate_series(1, :pages) AS page
    """,
)


async def test_a_search_reads_the_passages_of_its_tenant_once(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    """The index of words finds rare ones, the newest documents have common ones; no table is read as a whole."""
    async with transaction() as session:
        for statement in SEED:
            await session.execute(text(statement), {"documents": DOCUMENTS, "pages": PAGES})
    async with transaction() as session:
        await session.execute(text("ANALYZE passages, documents, revisions, uploads"))
    assert stranger.key != api.key

    for index, query in (
        (WORDS, {"q": "7"}),
        (WORDS, {"q": "common word 7"}),
        (WORDS, {"q": "7", "created_after": "2020-01-01", "content_type": "application/pdf"}),
        (NEWEST, {"q": "common"}),
        (NEWEST, {"q": "com* AND word"}),
        (NEWEST, {"q": "common", "created_after": "2020-01-01", "content_type": "application/pdf"}),
    ):
        with recorded() as plans:
            answer = await api.get("/search", mode="words", **query)

        assert answer.status_code == 200, answer.text
        (plan,) = [plan for plan in plans if "ts_rank" in plan.statement]
        assert index in plan.text, plan.text
        assert "Sort" not in plan.text, plan.text
        for plan in plans:
            shown = f"{query}\n{plan.statement}\n{plan.text}"
            assert not plan.scanned & {"passages", "documents"}, shown
            assert plan.rows <= OF_TENANT, shown
            assert plan.discarded <= OF_TENANT, shown
