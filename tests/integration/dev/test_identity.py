from pathlib import Path

import msgspec

from dev.stack import identity


def test_a_second_run_loads_the_same_secrets_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"

    first = identity.load_or_create(file)
    second = identity.load_or_create(file)

    assert first == second
    assert set(first.ports) == set(identity.PORTS)
    assert file.stat().st_mode & 0o077 == 0


def test_a_key_is_added_to_the_file_of_an_older_checkout(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    before = identity.load_or_create(file)
    older = msgspec.to_builtins(before)
    del older["secret_keys"]
    file.write_bytes(msgspec.json.encode(older))

    after = identity.load_or_create(file)

    assert after.secret_keys
    assert msgspec.structs.replace(after, secret_keys=before.secret_keys) == before
    assert identity.load_or_create(file) == after
