from pathlib import Path

from dev.stack import identity


def test_a_second_run_loads_the_same_secrets_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"

    first = identity.load_or_create(file)
    second = identity.load_or_create(file)

    assert first == second
    assert set(first.ports) == set(identity.PORTS)
    assert file.stat().st_mode & 0o077 == 0
