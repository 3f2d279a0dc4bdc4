"""What need not be asked again of an upload."""

from collections import OrderedDict
from typing import Final

from gateway.staging.port import StagedUpload
from schemas.ids import TenantId, UploadId

MOST: Final = 4096


class KnownUploads:
    """The uploads whose chunks came last, with what never changes of them.

    Their status does change, and is not in here: it is looked at once per chunk.
    """

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._uploads: OrderedDict[UploadId, StagedUpload] = OrderedDict()

    def find(self, upload_id: UploadId, *, tenant_id: TenantId) -> StagedUpload | None:
        """Return the upload where it is known, and this tenant's."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.tenant_id != tenant_id:
            return None
        self._uploads.move_to_end(upload_id)
        return upload

    def remember(self, upload: StagedUpload) -> None:
        self._uploads[upload.id] = upload
        if len(self._uploads) > self._most:
            self._uploads.popitem(last=False)
