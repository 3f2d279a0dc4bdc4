from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
WITHOUT_SERVICES = TESTS / "unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--state-dir",
        type=Path,
        default=TESTS.parent / "var" / "test",
        help="where the services keep their state; two test runs at once need one each",
    )
    parser.addoption(
        "--field-corpus",
        type=Path,
        default=None,
        help="directory of real files with an index.json of what each must yield",
    )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Load the fixtures of the real services, unless all collected tests are unit tests.

    Their imports take a second, which a run of one unit test should not cost.
    """
    if not module_path.is_relative_to(WITHOUT_SERVICES):
        parent.config.pluginmanager.import_plugin("tests.stack")
