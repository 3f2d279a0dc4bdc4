import os
from pathlib import Path
from threading import Event

import pytest

from pipeline.storage.file_slice import FileSlice, ReadAbandoned, SliceTruncated


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_reader_stops_at_the_end_of_the_slice(file: Path) -> None:
    with FileSlice(file, offset=3, size_bytes=4).open(abandoned=Event()) as reader:
        assert [reader.read(3), reader.read(3), reader.read(3)] == [b"345", b"6", b""]


def test_a_slice_can_be_read_again_after_seek(file: Path) -> None:
    with FileSlice(file, offset=3, size_bytes=4).open(abandoned=Event()) as reader:
        reader.read()
        assert reader.seek(0) == 0
        assert reader.read() == b"3456"


@pytest.mark.parametrize(
    ("offset", "whence", "position"),
    [(2, os.SEEK_SET, 2), (-1, os.SEEK_CUR, 0), (-1, os.SEEK_END, 3), (0, os.SEEK_END, 4)],
)
def test_positions_are_relative_to_the_start_of_the_slice(
    file: Path, offset: int, whence: int, position: int
) -> None:
    with FileSlice(file, offset=3, size_bytes=4).open(abandoned=Event()) as reader:
        reader.read(1)
        assert reader.seek(offset, whence) == position
        assert reader.tell() == position


def test_two_readers_of_one_file_are_independent(file: Path) -> None:
    piece = FileSlice(file, offset=0, size_bytes=10)
    with piece.open(abandoned=Event()) as one, piece.open(abandoned=Event()) as other:
        assert one.read(5) == b"01234"
        assert other.read(5) == b"01234"


def test_an_abandoned_reader_raises_at_the_next_block(file: Path) -> None:
    abandoned = Event()
    with FileSlice(file, offset=0, size_bytes=10).open(abandoned=abandoned) as reader:
        assert reader.read(5) == b"01234"
        abandoned.set()
        with pytest.raises(ReadAbandoned):
            reader.read(5)


def test_a_file_that_ends_inside_the_slice_raises(file: Path) -> None:
    with FileSlice(file, offset=8, size_bytes=4).open(abandoned=Event()) as reader:
        assert reader.read(4) == b"89"
        with pytest.raises(SliceTruncated):
            reader.read(4)


def test_opening_a_slice_of_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileSlice(tmp_path / "file", offset=0, size_bytes=1).open(abandoned=Event())
