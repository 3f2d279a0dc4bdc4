"""Removes files from the staging directory that no upload owns."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.maintenance import operations, ownership
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from schemas import staging_layout
from schemas.ids import UploadId

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 1000


def sweep(context: Context, budget: Budget) -> SweepReport:
    findings = SweepReport()
    directory = context.settings.staging_dir
    if directory is None:
        return findings
    if not (directory / staging_layout.MARKER).exists():
        # Not the gateways' directory: an empty mount point, or somebody else's files.
        log.warning("sweep.staging_not_mounted")
        return findings
    now = datetime.now(UTC)
    with os.scandir(directory) as entries:
        for batch in budget.batches(_staged(entries, findings), of=BATCH):
            old = {
                upload_id: path
                for upload_id, path, modified_at in batch
                if ownership.is_settled(modified_at, now=now, grace=context.settings.sweep_grace)
            }
            with context.transaction() as session:
                statuses = operations.statuses(session, old)
            left = [
                path
                for upload_id, path in old.items()
                if ownership.is_left_in_staging(statuses.get(upload_id))
            ]
            for path in left:
                findings.remove(path.name, partial(path.unlink, missing_ok=True))
            findings.kept += len(batch) - len(left)
    return findings


def _staged(
    entries: Iterable["os.DirEntry[str]"], findings: SweepReport
) -> Iterator[tuple[UploadId, Path, datetime]]:
    for entry in entries:
        upload_id = staging_layout.upload_of_file(entry.name)
        try:
            if upload_id is not None and entry.is_file(follow_symlinks=False):
                modified_at = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
                yield upload_id, Path(entry.path), modified_at
                continue
        except FileNotFoundError:
            continue  # its upload ended just now
        except OSError as error:
            findings.add_failed(entry.name, error)
            continue
        if entry.name != staging_layout.MARKER:
            findings.add_unrecognized(entry.name)
