"""Rules of style that ruff cannot check."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "pipeline", "notifier", "schemas", "dev", "tests")


# Most files have neither, and a search takes much less time than a parse.
RAISE_OF_A_NAME = re.compile(r"\braise\b[^\n]*\(\s*\w+\s*,?\s*\)")
CLOCK = re.compile(r"\b(datetime|date|time)\s*\.\s*(now|utcnow|today|time)\b")


def parsed(package: str, *, having: re.Pattern[str]) -> Iterator[tuple[str, ast.Module]]:
    """Yield the files of a package in which a pattern is found, with their paths."""
    for file in sorted((ROOT / package).rglob("*.py")):
        source = file.read_text()
        if having.search(source):
            yield str(file.relative_to(ROOT)), ast.parse(source)


def messages_apart(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of `msg = …` directly before `raise SomeError(msg)`."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if not isinstance(statements, list):
                continue
            for first, second in pairwise(statements):
                match first, second:
                    case (
                        ast.Assign(targets=[ast.Name(id=assigned)]),
                        ast.Raise(exc=ast.Call(args=[ast.Name(id=raised)], keywords=[])),
                    ) if assigned == raised:
                        yield first.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_an_error_is_raised_with_its_message_in_place(package: str) -> None:
    offenders = [
        f"{path}:{line}"
        for path, tree in parsed(package, having=RAISE_OF_A_NAME)
        for line in messages_apart(tree)
    ]

    assert not offenders


READERS_OF_THE_CLOCK = {
    "gateway/administration/listen.py",
    "gateway/readiness.py",
    "schemas/runtime/database_clock.py",
    "schemas/runtime/store_time.py",
}
"""They compare the clock of the process with another one, or serve the machine that they run on."""


@pytest.mark.parametrize("package", ["gateway", "pipeline", "notifier", "schemas"])
def test_no_module_decides_by_the_clock_of_the_process(package: str) -> None:
    """The clock of a machine may be days off: times come from the database."""
    offenders = [
        f"{path}:{node.lineno}"
        for path, tree in parsed(package, having=CLOCK)
        if path not in READERS_OF_THE_CLOCK
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr)
        in {("datetime", "now"), ("datetime", "utcnow"), ("date", "today"), ("time", "time")}
    ]

    assert not offenders
