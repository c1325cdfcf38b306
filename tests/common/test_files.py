"""Files are whole or not there, and a machine that cannot write says so."""

import pytest

from common.base.errors import MachineError
from common.base.files import write_whole


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path):
    (tmp_path / "in the way").write_text("")
    with pytest.raises(MachineError, match="Not a directory|File exists"):
        write_whole(tmp_path / "in the way" / "folder" / "file", b"content")


def test_a_folder_in_place_of_the_file_is_the_machines_fault(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(MachineError, match="Is a directory"):
        write_whole(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
