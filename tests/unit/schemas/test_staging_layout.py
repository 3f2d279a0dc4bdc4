from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import object_keys, staging_layout
from schemas.ids import TenantId, UploadId

TENANT = TenantId(UUID("11111111-1111-4111-8111-111111111111"))
UPLOAD = UploadId(UUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"))


@given(st.uuids())
def test_the_name_of_a_staged_file_is_its_uploads_id(upload_id: UUID) -> None:
    file = staging_layout.file_of(Path("staging"), UploadId(upload_id))
    assert staging_layout.upload_of_file(file.name) == upload_id


@pytest.mark.parametrize(
    "name",
    [
        staging_layout.MARKER,
        "lost+found",
        ".nfs000000001",
        str(UPLOAD).upper(),
        UPLOAD.hex,
        f"{{{UPLOAD}}}",
        f"{UPLOAD}.tmp",
        "",
    ],
)
def test_a_file_name_of_another_form_has_no_upload(name: str) -> None:
    assert staging_layout.upload_of_file(name) is None


def test_the_upload_of_a_key_is_found() -> None:
    chunk = staging_layout.chunk_key(TENANT, UPLOAD, index=3, sha256=bytes(32))
    assert staging_layout.upload_of_key(chunk) == UPLOAD
    assert object_keys.upload_of_original(object_keys.original(TENANT, UPLOAD)) == UPLOAD


@pytest.mark.parametrize(
    "key",
    [
        "",
        "staging/",
        "staging/.probe/checksums",
        f"staging/{UPLOAD}",
        f"staging/{TENANT}/{UPLOAD}",
        f"staging/elsewhere/{UPLOAD}/00000000-00",
        f"staging/{TENANT}/{UPLOAD.hex}/00000000-00",
        f"staging/{TENANT}/{UPLOAD}.bak/00000000-00",
        f"originals/elsewhere/{UPLOAD}",
        f"originals/{TENANT}/{UPLOAD}/more",
        f"originals/{TENANT}/{str(UPLOAD).upper()}",
        f"incoming/{TENANT}/{UPLOAD}",
        f"backups/originals/{TENANT}/{UPLOAD}",
    ],
)
def test_a_key_of_another_form_has_no_upload(key: str) -> None:
    assert staging_layout.upload_of_key(key) is None
    assert object_keys.upload_of_original(key) is None
