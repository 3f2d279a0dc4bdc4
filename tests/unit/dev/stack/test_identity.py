import itertools
from pathlib import Path

from dev.stack import identity


def test_every_secret_is_drawn_anew() -> None:
    numbers = itertools.count(1)

    made = identity.new(lambda length: f"{next(numbers):0{2 * length}x}")

    secrets = [
        made.stack_id,
        made.postgres_password,
        made.rabbitmq_password,
        made.erlang_cookie,
        made.s3_secret_access_key,
        made.swift_hash_suffix,
    ]
    assert len(set(secrets)) == len(secrets)


def test_secrets_outlive_the_run_and_are_private(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"

    first = identity.load_or_create(file)
    second = identity.load_or_create(file)

    assert first == second
    assert set(first.ports) == set(identity.PORTS)
    assert file.stat().st_mode & 0o077 == 0
