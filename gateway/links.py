"""Presigned URLs: a client fetches a stored object from the store, not through the gateway."""

import asyncio
from typing import TYPE_CHECKING

from schemas.errors import DomainError, ErrorCode
from schemas.object_keys import ObjectKey
from schemas.settings import LinkSettings, ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class NoStore(DomainError):
    """The gateway has no settings of the object store, so it cannot sign for the store."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("this gateway has no settings of the object store (S3_BUCKET and others)")


class Links:
    """Signs URLs of objects; nothing is sent to the store.

    Args:
        store: the object store; without it every link is refused.
        settings: the lifetime of a link, and the endpoint under which clients reach the store.
    """

    def __init__(self, store: ObjectStoreSettings | None, *, settings: LinkSettings) -> None:
        self._store = store
        self._settings = settings
        self._client: S3Client | None = None
        self._connecting = asyncio.Lock()

    async def url_of(
        self,
        key: ObjectKey,
        *,
        media_type: str,
        disposition: str,
        is_head: bool = False,
    ) -> str:
        """Return a URL that opens one object, for `DOCUMENT_LINK_TTL`.

        Args:
            key: the object.
            media_type: the `Content-Type` of the store's answer.
            disposition: the `Content-Disposition` of the store's answer.
            is_head: sign for HEAD; a signature is for one method.

        Raises:
            NoStore: the gateway has no settings of the object store.
        """
        client, bucket = await self._connected()
        return client.generate_presigned_url(
            "head_object" if is_head else "get_object",
            Params={
                "Bucket": bucket,
                "Key": key,
                "ResponseContentType": media_type,
                "ResponseContentDisposition": disposition,
            },
            ExpiresIn=int(self._settings.document_link_ttl.total_seconds()),
        )

    async def _connected(self) -> tuple["S3Client", str]:
        if self._store is None:
            raise NoStore
        async with self._connecting:
            if self._client is None:
                public_url = self._settings.s3_public_url
                store = (
                    self._store.model_copy(update={"s3_endpoint_url": public_url})
                    if public_url
                    else self._store
                )
                # In a thread: making a client takes a quarter of a second.
                self._client = await asyncio.to_thread(_client, store)
        return self._client, self._store.s3_bucket

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _client(store: ObjectStoreSettings) -> "S3Client":
    from schemas.runtime import s3  # noqa: PLC0415  # boto3 takes 20 MiB, even if unused

    return s3.client(store, max_connections=1)
