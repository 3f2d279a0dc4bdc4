from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from pipeline.ingest.passwords import PasswordUnreadable, password_of
from schemas.ids import UploadId
from schemas.key_ring import KeyRing
from schemas.policy import document_passwords
from schemas.settings import DatabaseSettings
from schemas.tables.document_passwords import DocumentPassword
from tests.factories.secret_keys import KEYS, OTHER_KEY
from tests.factories.uploads import add_finalized_upload, add_tenant, upload_of

OTHER_KEYS = KeyRing.parse(OTHER_KEY)


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


def upload_with_password(session: Session, secret: str | None = None) -> UploadId:
    """Add an upload with a password, or with this token of a password."""
    event = add_finalized_upload(
        session, tenant_id=add_tenant(session), staging_dir=None, content=b"x"
    )
    upload_id = upload_of(event)
    session.add(
        DocumentPassword(
            upload_id=upload_id,
            secret=secret or document_passwords.encrypt("öpen", upload_id=upload_id, keys=KEYS),
        )
    )
    session.flush()
    return upload_id


def test_the_password_of_an_upload_is_decrypted(session: Session) -> None:
    upload_id = upload_with_password(session)

    assert password_of(session, upload_id, KEYS) == "öpen"
    assert password_of(session, UploadId(uuid4()), KEYS) is None


def test_a_password_whose_key_is_missing_needs_an_operator(session: Session) -> None:
    upload_id = upload_with_password(session)

    with pytest.raises(PasswordUnreadable, match="has no key with the id") as raised:
        password_of(session, upload_id, OTHER_KEYS)
    assert raised.value.needs_operator


def test_the_password_of_another_upload_is_not_decrypted(session: Session) -> None:
    token = document_passwords.encrypt("öpen", upload_id=UploadId(uuid4()), keys=KEYS)

    with pytest.raises(PasswordUnreadable, match="encrypted for another row"):
        password_of(session, upload_with_password(session, token), KEYS)
