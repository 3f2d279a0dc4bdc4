"""Aborts multipart uploads that no transfer goes on with."""

from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.maintenance import operations, ownership
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.storage.errors import MultipartGone, ObjectMissing
from pipeline.storage.port import Multipart, ObjectStorage
from schemas import object_keys, staging_layout
from schemas.errors import StoreFailed

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 100


def sweep(context: Context, budget: Budget) -> SweepReport:
    findings = SweepReport()
    now = datetime.now(UTC)
    found = chain(
        context.storage.multiparts_under(object_keys.ORIGINALS),
        context.storage.multiparts_under(staging_layout.PROBES),
    )
    for batch in budget.batches(found, of=BATCH):
        owners = {listed: object_keys.upload_of_original(listed.multipart.key) for listed in batch}
        with context.transaction() as session:
            transfers = operations.transfers(session, {owner for owner in owners.values() if owner})
        for listed, owner in owners.items():
            if budget.is_spent:
                break  # a store that refuses takes its time over each
            if owner is None and not staging_layout.is_probe(listed.multipart.key):
                findings.add_unrecognized(listed.multipart.key)
            elif ownership.is_settled(
                listed.begun_at, now=now, grace=context.settings.sweep_grace
            ) and (
                owner is None
                or ownership.is_left_unfinished(listed.multipart.id, transfers.get(owner))
            ):
                _abort(listed.multipart, storage=context.storage, findings=findings)
            else:
                findings.kept += 1
    return findings


def _abort(multipart: Multipart, *, storage: ObjectStorage, findings: SweepReport) -> None:
    """Abort an orphan, unless it may be an object by now."""
    try:
        may_be_an_object = _may_be_an_object(multipart, storage=storage)
    except StoreFailed as error:
        findings.add_failed(multipart.key, error)
        return
    if may_be_an_object:
        log.warning("sweep.multipart_left", key=multipart.key, reason="it may be an object")
        findings.kept += 1
    else:
        findings.remove(multipart.key, partial(storage.abort, multipart))


def _may_be_an_object(multipart: Multipart, *, storage: ObjectStorage) -> bool:
    """Whether this upload may have been completed, though the store still lists it as open.

    A store that died while it completed an upload may list it for ever, and
    aborting it would then remove the parts the object is made of. Parts without
    an object, or an object beside an upload without parts, prove that it was not.
    """
    try:
        storage.head(multipart.key)
        return bool(storage.list_parts(multipart))
    except (ObjectMissing, MultipartGone):
        return False
