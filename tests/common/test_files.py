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


@pytest.mark.parametrize("name", ["n" * 242 + ".png", "n" * 255, "図" * 85])
def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path, name):
    write_whole(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_stays_a_link_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "link").symlink_to("folder/file")
    for content in (b"first", b"second"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "link"]
