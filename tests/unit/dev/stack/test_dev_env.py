from pathlib import Path

import pytest

from dev.stack import dev_env
from dev.stack.errors import StackNotRunning


def test_quoted_values_are_read_back_unchanged(tmp_path: Path) -> None:
    (tmp_path / dev_env.FILE_NAME).write_text("A_URL='http://x/?a=b&c'\nWAYBILL_API_KEY=k==\n")

    assert dev_env.read(tmp_path) == {"A_URL": "http://x/?a=b&c", "WAYBILL_API_KEY": "k=="}


def test_a_missing_file_means_that_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(StackNotRunning, match="make up"):
        dev_env.read(tmp_path)
