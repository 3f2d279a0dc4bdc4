from pathlib import Path

from dev.stack import dev_env


def test_values_with_equal_signs_are_read_back_whole(tmp_path: Path) -> None:
    (tmp_path / dev_env.FILE_NAME).write_text("A_URL=http://x/?a=b\nWAYBILL_API_KEY=k==\n")

    assert dev_env.read(tmp_path) == {"A_URL": "http://x/?a=b", "WAYBILL_API_KEY": "k=="}
