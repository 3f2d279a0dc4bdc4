from pathlib import Path

import pytest

from dev.stack import dev_env
from dev.stack.errors import StackNotRunning


def test_quoted_values_are_read_back_whole(tmp_path: Path) -> None:
    (tmp_path / dev_env.FILE_NAME).write_text("A_URL='http://x/?a=b&c'\nWAYBILL_API_KEY=k==\n")

    assert dev_env.read(tmp_path) == {"A_URL": "http://x/?a=b&c", "WAYBILL_API_KEY": "k=="}


def test_without_the_file_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(StackNotRunning, match="make up"):
        dev_env.read(tmp_path)
