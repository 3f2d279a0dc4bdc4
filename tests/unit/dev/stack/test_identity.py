import itertools

from dev.stack import identity
from schemas.key_ring import KeyRing


def test_every_secret_is_drawn_separately() -> None:
    numbers = itertools.count(1)

    made = identity.new(lambda length: f"{next(numbers):0{2 * length}x}")

    secrets = [
        made.stack_id,
        made.postgres_password,
        made.rabbitmq_password,
        made.erlang_cookie,
        made.s3_secret_access_key,
        made.swift_hash_suffix,
        made.secret_keys,
    ]
    assert len(set(secrets)) == len(secrets)
    KeyRing.parse(made.secret_keys)
