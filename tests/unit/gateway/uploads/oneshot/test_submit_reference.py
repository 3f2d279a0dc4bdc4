from uuid import UUID

import pytest

from schemas.ids import TenantId
from schemas.policy.references import ReferenceRefused, name_in

TENANT = TenantId(UUID("11111111-1111-1111-1111-111111111111"))
OURS = f"incoming/{TENANT}/"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (OURS + "a.pdf", "a.pdf"),
        (OURS + "2026/11/a b.pdf", "a b.pdf"),
        (OURS + "...", "..."),
        (OURS + "Ünïcode.pdf", "Ünïcode.pdf"),
    ],
)
def test_an_object_under_the_tenants_prefix_is_named_by_the_last_part_of_its_key(
    key: str, name: str
) -> None:
    assert name_in(key, tenant_id=TENANT) == name


@pytest.mark.parametrize(
    "key",
    [
        "a.pdf",
        "incoming/a.pdf",
        "incoming/22222222-2222-2222-2222-222222222222/a.pdf",
        f"originals/{TENANT}/a.pdf",
        f"incoming/{TENANT}",
        f"/incoming/{TENANT}/a.pdf",
        f"incoming/{str(TENANT).upper()}x/a.pdf",
        OURS,
        OURS + "a/",
        OURS + "/a",
        OURS + "a//b",
        OURS + "../a",
        OURS + "a/../../b",
        OURS + "./a",
        OURS + "a/..",
        OURS + "a\nb",
        OURS + "a\x00b",
        OURS + "a\x7fb",
        OURS + "ü" * 512,
    ],
)
def test_an_object_outside_the_tenants_prefix_or_with_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(ReferenceRefused):
        name_in(key, tenant_id=TENANT)
