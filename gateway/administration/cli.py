"""`waybill`: operators' commands on the database that `DATABASE_URL` names.

A command imports what it needs when it runs: `waybill --help` imports no server.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import click

from schemas.api.scopes import Scope
from schemas.lifecycle import DeadLetterState

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from gateway.administration.dead_letters import Settled
    from gateway.administration.quotas import QuotaChanges
    from gateway.db import Database
    from gateway.settings import AdministrationSettings
    from schemas.policy.quotas import Quotas

NAME_MAX: Final = 200
NUMBER: Final = re.compile(r"[+-]?[0-9.]+")
LIFETIME_MAX: Final = timedelta(days=36_500)
QUOTA_MAX: Final = 2**63 - 1
DEFAULT: Final = "none"
"""The tenant has no quota of its own; the default of the settings applies."""

Result = TypeVar("Result")


def printable_name(text: str) -> str:
    if not text.strip() or len(text) > NAME_MAX or not text.isprintable():
        raise click.BadParameter(f"a name is 1 to {NAME_MAX} printable characters")
    return text


def lifetime(text: str) -> timedelta:
    """Parse a duration such as `90d`; a number alone, which settings read as seconds, has no unit."""
    from pydantic import TypeAdapter, ValidationError

    from schemas.settings import Duration

    if NUMBER.fullmatch(text.strip()):
        raise click.BadParameter(
            f"{text!r} has no unit: {text.strip()}d are days, h hours, m minutes"
        )
    try:
        parsed: timedelta = TypeAdapter(Duration).validate_python(text)
    except (ValidationError, OverflowError):
        parsed = timedelta.max
    if parsed > LIFETIME_MAX:
        raise click.BadParameter(f"{text!r} is no duration such as 12h or 90d, up to 100 years")
    return parsed


def point_in_time(text: str) -> datetime:
    """Parse a time of ISO 8601; without an offset it is in UTC."""
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time such as 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None


def gateway_url(text: str) -> str:
    """Check a URL whose host a request can reach; a mistyped one would be tried for ever."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises for a port out of range
    except ValueError:
        is_url = False
    if not is_url:
        raise click.BadParameter(f"{text!r} is no URL such as https://waybill.example.com")
    return text


def key_text(text: str) -> str:
    """Check what a header can carry; the message does not contain the text."""
    if not (text.isascii() and text.isprintable() and text.strip()):
        raise click.BadParameter("an API key is printable ASCII text")
    return text


def size(text: str) -> int:
    """Parse a number of bytes such as `10GiB`."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        parsed = int(TypeAdapter(ByteSize).validate_python(text))
    except (ValidationError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a size such as 10GiB nor {DEFAULT}"
        ) from None
    return count(str(parsed))


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > QUOTA_MAX:
        raise click.BadParameter(f"{text!r} is neither {DEFAULT} nor between 0 and {QUOTA_MAX}")
    return int(text)


def media_ranges(text: str) -> list[str]:
    """Parse media types or ranges such as `image/*`, comma-separated."""
    from schemas.policy import quotas

    try:
        return [quotas.media_range(each.strip()) for each in text.split(",")]
    except quotas.NotAMediaRange as error:
        raise click.BadParameter(str(error)) from error


def or_default(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: text if text == DEFAULT else parse(text)


def changes_in(options: dict[str, Any]) -> "QuotaChanges":
    """Return the quotas given on the command line, and no others."""
    changes: Any = {
        name: None if value == DEFAULT else value
        for name, value in options.items()
        if value is not None
    }
    return changes  # type: ignore[no-any-return]  # the option names are the keys of QuotaChanges


def settings() -> "AdministrationSettings":
    from gateway.settings import AdministrationSettings

    return AdministrationSettings.load()


def on_database(
    loaded: "AdministrationSettings", operation: "Callable[[Database], Awaitable[Result]]"
) -> Result:
    """Run an operation; an unknown name or id ends the command."""
    from gateway import db
    from gateway.administration.dead_letters import DeadLetterRefused
    from gateway.administration.keys import KeyRefused
    from gateway.administration.reindex import ReindexRefused
    from gateway.administration.tenants import TenantBeingDeleted, TenantUnknown
    from gateway.document_changes.reprocess import DocumentBusy
    from gateway.documents.errors import DocumentNotFound
    from schemas.runtime import logging

    async def run() -> Result:
        engine = db.build_engine(loaded, connection=db.COMMAND_CONNECTION)
        try:
            return await operation(db.Database(engine))
        finally:
            await engine.dispose()

    logging.configure(loaded, service="waybill")
    try:
        return asyncio.run(run())
    except (
        TenantUnknown,
        TenantBeingDeleted,
        KeyRefused,
        DeadLetterRefused,
        DocumentNotFound,
        DocumentBusy,
        ReindexRefused,
    ) as error:
        raise click.ClickException(str(error)) from error


def in_transaction(
    loaded: "AdministrationSettings", operation: "Callable[[AsyncSession], Awaitable[Result]]"
) -> Result:
    """Run an operation in one transaction; an unknown name or id ends the command."""

    async def run(database: "Database") -> Result:
        async with database.transaction() as session:
            return await operation(session)

    return on_database(loaded, run)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns as wide as their longest cell."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def described(quotas: "Quotas") -> str:
    """Return quotas, one per line."""
    total = "no limit" if quotas.total_bytes is None else str(quotas.total_bytes)
    staged = (
        f"{quotas.staged_share:.0%} of the staging disk"
        if quotas.staged_bytes is None
        else str(quotas.staged_bytes)
    )
    return "\n".join(
        (
            f"bytes: {total}",
            f"open-uploads: {quotas.open_uploads}",
            f"file-size: {quotas.file_size}",
            f"staged-bytes: {staged}",
            f"types: {', '.join(quotas.types)}",
        )
    )


def moment(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """Print JSON in ASCII: foreign text must not control the terminal."""
    click.echo(json.dumps(value, indent=2))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Administer tenants, API keys, quotas, secrets, dead letters and the ledger of webhooks.

    Settings are environment variables or files in /run/secrets, as for the gateway.
    """


@main.command("reindex")
@click.option(
    "--model",
    help="A value of EMBEDDING_MODEL; by default that of the environment.",
)
@click.option("--give-up", "is_given_up", is_flag=True, help="Delete the vectors made so far.")
@click.option("--no-wait", is_flag=True, help="Order, and end at once.")
def reindex(*, model: str | None, is_given_up: bool, no_wait: bool) -> None:
    """Make the vectors of a new model beside the old ones, then let search use them.

    The workers of `search_indexing` make them, also while this command does not run. Search goes on with
    the old vectors until one transaction switches. A repetition follows the same work; for the model in
    use, it makes the vectors that are missing.
    """
    from gateway.administration import audit, reindex
    from gateway.settings import ReindexSettings
    from schemas.runtime.embedding import chosen
    from schemas.settings import EmbeddingModelName

    loaded, actor = ReindexSettings.load(), audit.current_actor()
    if is_given_up:
        name = in_transaction(loaded, lambda session: reindex.give_up(session, actor=actor))
        click.echo("no model is being built" if name is None else f"given up: {name}")
        return
    try:
        chosen_name = loaded.embedding_model if model is None else EmbeddingModelName(model)
    except ValueError:
        names = ", ".join(chosen.MODELS)
        raise click.BadParameter(f"{model!r} is none of {names}", param_hint="--model") from None
    wanted = chosen.MODELS.get(chosen_name)
    if wanted is None:
        raise click.UsageError("EMBEDDING_MODEL is none: name a model with --model")
    model_id = in_transaction(loaded, lambda session: reindex.order(session, wanted, actor=actor))
    click.echo(f"model: {wanted.name}")
    if no_wait:
        return
    click.echo("the workers of search_indexing go on; Ctrl-C ends this command only", err=True)
    try:
        ended = on_database(
            loaded,
            lambda database: reindex.follow(
                database,
                model_id,
                report=lambda progress: click.echo(
                    f"documents: {progress.done} of about {progress.total}", err=True
                ),
            ),
        )
    except KeyboardInterrupt:
        click.echo("the work goes on", err=True)
        return
    click.echo(f"in use, with every document: {moment(ended.filled_at)}")


@main.group("tenants")
def tenants_group() -> None:
    """Tenants and their usage."""


@tenants_group.command("list")
def list_tenants() -> None:
    """Print every tenant with its usage."""
    from gateway.administration import tenants

    table(
        ("TENANT", "ID", "BYTES", "OPEN UPLOADS", "STAGED BYTES"),
        in_transaction(settings(), tenants.everyone),
    )


REUSE: Final = "reuse"
REFUSE: Final = "refuse"


@tenants_group.command("duplicates")
@click.argument("tenant", type=printable_name)
@click.argument("policy", type=click.Choice([REUSE, REFUSE]), required=False)
def set_duplicates(*, tenant: str, policy: str | None) -> None:
    """Set or print what becomes of a document with the bytes of an earlier one of the tenant.

    `reuse`, the default, copies what was read before; `refuse` fails the job.
    """
    from gateway.administration import tenants

    refused = in_transaction(
        settings(),
        lambda session: tenants.duplicates(
            session, name=tenant, refused=None if policy is None else policy == REFUSE
        ),
    )
    click.echo(f"duplicates: {REFUSE if refused else REUSE}")


@tenants_group.command("delete")
@click.argument("tenant", type=printable_name)
@click.option("--yes", "is_ordered", is_flag=True, help="Delete; this cannot be undone.")
@click.option("--dry-run", is_flag=True, help="Count the rows that would be deleted.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the deletion.")
def delete_tenant(*, tenant: str, is_ordered: bool, dry_run: bool, no_wait: bool) -> None:
    """Delete a tenant with everything it has, in the database, the bucket and staging.

    Its keys are revoked at once; gateways accept them for up to API_KEY_CACHE (5 s) more. A worker
    of `maintenance` deletes in small steps, also while this command does not run. At the end, the
    command counts what is left in each table. A repetition follows the same deletion.
    """
    from gateway.administration import audit, tenant_deletion

    if is_ordered == dry_run:
        raise click.UsageError("give either --dry-run or --yes")
    if dry_run:
        found = in_transaction(
            settings(), lambda session: tenant_deletion.count(session, name=tenant)
        )
        table(("TABLE", "ROWS"), ((name, rows) for name, rows in found.items() if rows))
        return
    actor = audit.current_actor()
    loaded = settings()
    tenant_id = in_transaction(
        loaded, lambda session: tenant_deletion.order(session, name=tenant, actor=actor)
    )
    click.echo(f"tenant: {tenant_id}")
    if no_wait:
        return
    click.echo("a worker of maintenance deletes; Ctrl-C ends this command only", err=True)
    try:
        ended = on_database(
            loaded,
            lambda database: tenant_deletion.follow(
                database,
                tenant_id,
                report=lambda progress: click.echo(
                    f"deleted: {sum(progress.deleted.values())} rows, {progress.objects} objects",
                    err=True,
                ),
            ),
        )
    except KeyboardInterrupt:
        click.echo("the deletion goes on", err=True)
        return
    left = in_transaction(loaded, lambda session: tenant_deletion.rows_of(session, tenant_id))
    table(
        ("TABLE", "DELETED", "LEFT"),
        ((name, ended.deleted.get(name, 0), rows) for name, rows in left.items()),
    )
    click.echo(f"objects: {ended.objects} deleted, 0 left")
    click.echo(f"finished: {moment(ended.finished_at)}")
    if any(left.values()):
        raise click.ClickException("rows were added after the end; they are deleted within an hour")


@tenants_group.command("retention")
@click.argument("tenant", type=printable_name)
@click.option(
    "--documents",
    type=or_default(lifetime),
    metavar="DURATION",
    help="Such as 90d; `none` keeps them.",
)
def set_retention(*, tenant: str, documents: timedelta | str | None) -> None:
    """Set or print how long the documents of a tenant are kept after their file was stored.

    The next sweep deletes older documents with their file, and emits `upload.cancelled` for each.
    """
    from gateway.administration import audit, retention
    from schemas.tables.retention import as_setting

    if documents is None:
        kept_for = in_transaction(
            settings(), lambda session: retention.kept_documents(session, tenant=tenant)
        )
    else:
        wanted = documents if isinstance(documents, timedelta) else None
        kept_for = in_transaction(
            settings(),
            lambda session: retention.documents(
                session, tenant=tenant, kept_for=wanted, actor=audit.current_actor()
            ),
        )
    click.echo(f"documents: {DEFAULT if kept_for is None else as_setting(kept_for)}")


@main.command("retention")
@click.option("--dry-run", is_flag=True, required=True, help="Count, and delete nothing.")
@as_json
def show_retention(*, dry_run: bool, as_json: bool) -> None:  # noqa: ARG001  # an option that must be given
    """Count what the next sweep deletes, and the oldest of it, by area.

    Events and deliveries are dropped by the week; a week of which a row is still needed is kept.
    Set the retentions for this command as for the workers.
    """
    from gateway.administration import retention
    from gateway.settings import RetentionSettings

    loaded = RetentionSettings.load()
    found = in_transaction(loaded, lambda session: retention.due(session, settings=loaded))
    if as_json:
        print_json(found)
        return
    table(
        ("AREA", "ROWS", "OLDEST", "KEPT FOR"),
        ((each["area"], each["rows"], each["oldest"] or "-", each["kept_for"]) for each in found),
    )


@main.group("keys")
def keys_group() -> None:
    """API keys."""


@keys_group.command("create")
@click.argument("tenant", type=printable_name)
@click.option("--name", type=printable_name, help="For you; the list shows it.")
@click.option(
    "--expires-in", type=lifetime, metavar="DURATION", help="Such as 12h or 90d; default: never."
)
@click.option(
    "--expires-at",
    type=point_in_time,
    metavar="TIME",
    help="Such as 2027-01-31 or 2027-01-31T12:00:00Z, in UTC unless it has an offset.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="Repeatable. Without it the key has every scope.",
)
def create_key(
    *,
    tenant: str,
    name: str | None,
    expires_in: timedelta | None,
    expires_at: datetime | None,
    scopes: tuple[str, ...],
) -> None:
    """Create a key and print it; it is not shown again. A missing tenant is created."""
    from gateway.administration import audit, keys

    if expires_in and expires_at:
        raise click.UsageError("give either --expires-in or --expires-at")
    chosen = [Scope(scope) for scope in scopes] or list(Scope)
    new = in_transaction(
        settings(),
        lambda session: keys.create(
            session,
            tenant=tenant,
            scopes=chosen,
            actor=audit.current_actor(),
            name=name,
            expires=expires_in or expires_at,
        ),
    )
    click.echo(f"id: {new.id}\nprefix: {new.prefix}")
    if new.expires_at is not None:
        click.echo(f"expires: {moment(new.expires_at)}")
    click.echo(f"key: {new.key}")


@keys_group.command("list")
@click.argument("tenant", type=printable_name, required=False)
@as_json
def list_keys(*, tenant: str | None, as_json: bool) -> None:
    """Print the keys of a tenant, or of all tenants; never the key itself.

    The prefix is the start of the key; a key from before prefixes has none.
    """
    from gateway.administration import keys

    found = in_transaction(settings(), lambda session: keys.of(session, tenant=tenant))
    if as_json:
        print_json(found)
        return
    table(
        [column.replace("_", " ").upper() for column in keys.COLUMNS],
        ([listed(key[column]) for column in keys.COLUMNS] for key in found),
    )


def listed(value: str | list[str] | None) -> str:
    return ",".join(value) if isinstance(value, list) else value or "-"


@keys_group.command("revoke")
@click.argument("key", metavar="ID|PREFIX")
def revoke_key(key: str) -> None:
    """Revoke a key by its id or prefix. Gateways accept it for up to API_KEY_CACHE (5 s) more."""
    from gateway.administration import audit, keys

    revoked_at = in_transaction(
        settings(),
        lambda session: keys.revoke(session, key, actor=audit.current_actor()),
    )
    click.echo(f"revoked: {moment(revoked_at)}")


@main.group("quotas")
def quotas_group() -> None:
    """Quotas of one tenant."""


@quotas_group.command("show")
@click.argument("tenant", type=printable_name)
def show_quotas(tenant: str) -> None:
    """Print the quotas in force for a tenant."""
    _change_quotas(tenant, {})


@quotas_group.command("set")
@click.argument("tenant", type=printable_name)
@click.option(
    "--bytes",
    "quota_bytes",
    type=or_default(size),
    metavar="SIZE",
    help="Of all uploads together, such as 50GiB.",
)
@click.option(
    "--open-uploads",
    "quota_open_uploads",
    type=or_default(count),
    metavar="COUNT",
    help="At one time.",
)
@click.option(
    "--file-size",
    "quota_file_size",
    type=or_default(size),
    metavar="SIZE",
    help="Of one file, such as 2GiB.",
)
@click.option(
    "--staged-bytes",
    "quota_staged_bytes",
    type=or_default(size),
    metavar="SIZE",
    help="Of uploads that are open or not yet transferred, such as 20GiB.",
)
@click.option(
    "--types",
    "allowed_types",
    type=or_default(media_ranges),
    metavar="TYPES",
    help="Media types or ranges, comma-separated: 'application/pdf,image/*'; '*/*' allows any.",
)
def set_quotas(tenant: str, **options: Any) -> None:  # noqa: ANN401  # one for each quota
    """Change a tenant's quotas and print those in force.

    An option that is not given changes nothing; `none` restores the default.
    """
    changes = changes_in(options)
    if not changes:
        raise click.UsageError("give at least one quota to change")
    _change_quotas(tenant, changes)


def _change_quotas(tenant: str, changes: "QuotaChanges") -> None:
    from gateway.administration import quotas

    loaded = settings()
    in_force = in_transaction(
        loaded,
        lambda session: quotas.change(session, tenant=tenant, changes=changes, settings=loaded),
    )
    click.echo(described(in_force))


@main.group("secrets")
def secrets_group() -> None:
    """Secrets in the database."""


@secrets_group.command("rotate")
def rotate_secrets() -> None:
    """Encrypt all secrets in the database with the first key of SECRET_KEYS.

    They are the secrets of webhooks and the passwords of documents.

    Repeatable. Secrets that the first key already encrypts are skipped; secrets that are not
    encrypted are encrypted. The exit code is 1 if no key decrypts a secret.
    """
    from gateway.administration import secrets
    from gateway.settings import SecretAdministrationSettings

    loaded = SecretAdministrationSettings.load()
    rotation = on_database(loaded, lambda database: secrets.rotate(database, keys=loaded.key_ring))
    click.echo(f"encrypted: {rotation.encrypted}")
    for owner, reason in rotation.unreadable.items():
        click.echo(f"{owner}: {reason}", err=True)
    if rotation.unreadable:
        raise click.ClickException(f"{len(rotation.unreadable)} secrets cannot be decrypted")


@main.group("webhooks")
def webhooks_group() -> None:
    """The webhooks of the tenants."""


@webhooks_group.command("ledger")
@click.option("--tenant", type=printable_name, help="Only this tenant.")
@click.option("--since", type=point_in_time, help="Events since this time; by default a day ago.")
@as_json
def show_ledger(*, tenant: str | None, since: datetime | None, as_json: bool) -> None:
    """Compare the deliveries that events have with the log; fail if they differ."""
    from gateway.administration import webhooks

    found = in_transaction(
        settings(), lambda session: webhooks.ledgers(session, tenant=tenant, since=since)
    )
    rows = [each.summary() for each in found]
    if as_json:
        print_json(rows)
    else:
        columns = ("tenant", *webhooks.COUNTS, "difference")
        table(
            [column.upper() for column in columns],
            ([str(row[column]) for column in columns] for row in rows),
        )
    uneven = [each.tenant for each in found if each.difference]
    if uneven:
        raise click.ClickException(f"the ledger of {', '.join(uneven)} is not even")


DEAD_LETTERS_MAX: Final = 1000
"""Most dead letters of one list."""

DEAD_LETTER_ID: Final = click.IntRange(1, 2**63 - 1)


@main.group("documents")
def documents_group() -> None:
    """Stored files of tenants."""


@documents_group.command("rescan")
@click.argument("document_id", type=click.UUID)
def rescan_document(document_id: UUID) -> None:
    """Scan the file of a document for malware again, and then read it, also if it is quarantined.

    For false alarms, once the signature is corrected. Prints the id of the job.
    """
    from gateway.administration import audit, documents
    from gateway.settings import RescanSettings
    from schemas.ids import DocumentId

    loaded = RescanSettings.load()
    job_id = in_transaction(
        loaded,
        lambda session: documents.rescan(
            session, document_id=DocumentId(document_id), actor=audit.current_actor()
        ),
    )
    click.echo(f"job: {job_id}")
    if loaded.malware_scan is None:
        click.echo(
            "MALWARE_SCAN is not set here: the job waits until the workers of uploads have it, and"
            " `POST /jobs/{id}/cancel` ends it",
            err=True,
        )


@main.group("dead-letters")
def dead_letters_group() -> None:
    """Messages that no consumer accepted, or that no queue received."""


@dead_letters_group.command("list")
@click.option("--queue", help="A work queue, or waybill.unrouted.")
@click.option(
    "--state",
    type=click.Choice([state.value for state in DeadLetterState]),
    default=DeadLetterState.WAITING.value,
    show_default=True,
)
@click.option("--type", "event_type", help="An event type, such as upload.stored.")
@click.option("--limit", type=click.IntRange(1, DEAD_LETTERS_MAX), default=50, show_default=True)
@click.option("--before", type=DEAD_LETTER_ID, metavar="ID", help="Only those older than this one.")
@as_json
def list_dead_letters(
    *,
    queue: str | None,
    state: str,
    event_type: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """Print dead letters, newest first."""
    from gateway.administration import dead_letters

    found = in_transaction(
        settings(),
        lambda session: dead_letters.listed(
            session,
            state=DeadLetterState(state),
            queue=queue,
            event_type=event_type,
            before=before,
            limit=limit,
        ),
    )
    letters = [dead_letters.summary(letter) for letter in found]
    if as_json:
        print_json(letters)
        return
    columns = (
        "id",
        "received_at",
        "queue",
        "reason",
        "deaths",
        "event_type",
        "tenant_id",
        "job_id",
    )
    table(
        [column.upper() for column in columns],
        ([letter[column] or "-" for column in columns] for letter in letters),
    )
    if len(letters) == limit:
        click.echo(f"older ones: --before {letters[-1]['id']}", err=True)


@dead_letters_group.command("show")
@click.argument("letter_id", metavar="ID", type=DEAD_LETTER_ID)
@as_json
def show_dead_letter(*, letter_id: int, as_json: bool) -> None:
    """Print a dead letter with its headers and its body; secrets in them are masked."""
    from gateway.administration import dead_letters

    letter = dead_letters.details(
        in_transaction(settings(), lambda session: dead_letters.find(session, letter_id))
    )
    if as_json:
        print_json(letter)
        return
    for name, value in letter.items():
        if value is None:
            continue
        # A body may be a JSON string; its control characters must stay escaped.
        printable = isinstance(value, str) and name != "body"
        click.echo(f"{name}: {value if printable else json.dumps(value, indent=2)}")


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """Add the parameters of a command for some dead letters or for all of a queue."""
    for parameter in (
        as_json,
        click.option("--all", "everything", is_flag=True, help="All that wait, with --queue."),
        click.option("--queue", help="A work queue, or waybill.unrouted."),
        click.argument("ids", metavar="[ID]...", type=DEAD_LETTER_ID, nargs=-1),
    ):
        command = parameter(command)
    return command


@dead_letters_group.command("replay")
@chosen
def replay_dead_letters(
    *, ids: tuple[int, ...], queue: str | None, everything: bool, as_json: bool
) -> None:
    """Publish the events of dead letters again: to their work queue, or to the exchange of events.

    With ids, all or none are replayed. A repeated event changes nothing.
    """
    from gateway.administration import audit, dead_letters

    actor = audit.current_actor()
    if name := _whole_queue(ids, queue, everything=everything):
        settled = on_database(
            settings(), lambda database: dead_letters.replay_all(database, queue=name, actor=actor)
        )
    else:
        settled = in_transaction(
            settings(), lambda session: dead_letters.replay(session, ids, actor=actor)
        )
    _print_settled("replayed", settled, as_json=as_json)


@dead_letters_group.command("drop")
@chosen
def drop_dead_letters(
    *, ids: tuple[int, ...], queue: str | None, everything: bool, as_json: bool
) -> None:
    """Give up dead letters. Their rows stay for DEAD_LETTER_RETENTION (90 d)."""
    from gateway.administration import audit, dead_letters

    actor = audit.current_actor()
    if name := _whole_queue(ids, queue, everything=everything):
        settled = on_database(
            settings(), lambda database: dead_letters.drop_all(database, queue=name, actor=actor)
        )
    else:
        settled = in_transaction(
            settings(), lambda session: dead_letters.drop(session, ids, actor=actor)
        )
    _print_settled("dropped", settled, as_json=as_json)


def _whole_queue(ids: tuple[int, ...], queue: str | None, *, everything: bool) -> str | None:
    """Return the queue that is meant as a whole; None for single ids."""
    if ids and queue is None and not everything:
        return None
    if queue and everything and not ids:
        return queue
    raise click.UsageError("give either ids, or --queue with --all")


def _print_settled(done: str, settled: "Settled", *, as_json: bool) -> None:
    if as_json:
        print_json({done: settled.count, "refused": settled.refused})
        return
    click.echo(f"{done}: {settled.count}")
    for reason in settled.refused:
        click.echo(reason, err=True)


@main.command("listen")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option("--path", default="/", show_default=True, help="Of the server on this machine.")
@click.option(
    "--url",
    "gateway",
    envvar="WAYBILL_URL",
    required=True,
    type=gateway_url,
    metavar="URL",
    help="Of the gateway; default: WAYBILL_URL.",
)
@click.option(
    "--api-key",
    envvar="WAYBILL_API_KEY",
    required=True,
    type=key_text,
    metavar="KEY",
    help="With the scope webhooks:read; default: WAYBILL_API_KEY, which other users cannot see.",
)
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Such as 'document.*'. Repeatable."
)
@click.option(
    "--secret", envvar="WAYBILL_LISTEN_SECRET", help="Signs the requests; default: a new one."
)
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest event that is stored.")
def listen(
    *,
    port: int,
    path: str,
    gateway: str,
    api_key: str,
    types: tuple[str, ...],
    secret: str | None,
    from_beginning: bool,
) -> None:
    """Forward a tenant's events to http://127.0.0.1:PORT, signed as webhooks are.

    Needs no public URL, and neither the database nor settings of the server. Prints a line per
    event; an event that the server refuses is not sent again. Ctrl-C ends it.
    """
    from gateway.administration import listen
    from schemas.policy import webhook_secrets

    chosen = secret or webhook_secrets.generate(webhook_secrets.SecretKind.V1)
    target = f"http://127.0.0.1:{port}/{path.removeprefix('/')}"
    click.echo(f"to:      {target}")
    if secret is None:
        click.echo(f"secret:  {chosen}")
    try:
        asyncio.run(
            listen.listen(
                gateway=gateway,
                api_key=api_key,
                to=target,
                secret=chosen,
                types=types,
                from_beginning=from_beginning,
                report=click.echo,
            )
        )
    except listen.ListenFailed as error:
        raise click.ClickException(f"no events from the gateway: {error}") from error
    except webhook_secrets.SecretMalformed as error:
        raise click.BadParameter(str(error), param_hint="--secret") from error
    except KeyboardInterrupt:
        click.echo("ended")


if __name__ == "__main__":
    main()
