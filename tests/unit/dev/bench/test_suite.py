from importlib import import_module

from dev.bench.suite import BENCHMARKS


def test_every_benchmark_is_a_module_of_the_same_name() -> None:
    for name in BENCHMARKS:
        assert import_module(f"dev.bench.{name}").run


def test_the_peer_is_named_with_exact_versions() -> None:
    versions = import_module("dev.bench.tus_server").versions()

    assert versions.keys() == {"@tus/server", "@tus/file-store"}
    assert all(version[0].isdigit() for version in versions.values())
