"""Removes objects that appeared after their upload had ended without one.

A request a worker gave up may be carried out by the store minutes later. The
events of the upload have removed what there was, and nobody else would look.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Final

from pipeline.context import Context
from pipeline.maintenance import operations
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.storage.errors import ObjectMissing
from pipeline.storage.port import ObjectStorage
from schemas import object_keys
from schemas.errors import StoreRejected
from schemas.object_keys import ObjectKey

BATCH: Final = 100
LOOKS: Final = 3
"""How many sweeps look at an upload, about: one of them may be cut short."""


def sweep(context: Context, budget: Budget) -> SweepReport:
    findings = SweepReport()
    settled = datetime.now(UTC) - context.settings.sweep_grace
    with context.transaction() as session:
        ended = operations.ended_without_object(
            session, after=settled - LOOKS * context.settings.sweep_every, before=settled
        )
    for batch in budget.batches(ended, of=BATCH):
        for upload in batch:
            if budget.is_spent:
                break  # a store that refuses takes its time over each
            key = object_keys.original(upload.tenant_id, upload.upload_id)
            _remove(key, storage=context.storage, findings=findings)
    return findings


def _remove(key: ObjectKey, *, storage: ObjectStorage, findings: SweepReport) -> None:
    try:
        is_there = _is_there(key, storage=storage)
    except StoreRejected as error:
        # It refuses this one. A store that is down, or refuses us, would refuse them all:
        # that ends the sweep, and the next one tries again.
        findings.add_failed(key, error)
        return
    if is_there:
        findings.remove(key, partial(storage.delete, key))


def _is_there(key: ObjectKey, *, storage: ObjectStorage) -> bool:
    try:
        storage.head(key)
    except ObjectMissing:
        return False
    return True
