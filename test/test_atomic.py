"""Files that appear complete or not at all."""

import os

import pytest

from nr_tracking.atomic import check_replaceable, prepare_file, prepare_folder, written_file, written_folder
from nr_tracking.types import InputError


def test_a_file_is_replaced_whole_and_stays_where_writing_fails(tmp_path):
    path = tmp_path / "summary.json"
    with written_file(path) as file:
        file.write_text("first")
        assert not path.exists()
    with pytest.raises(OSError), written_file(path) as file:
        file.write_text("half of the sec")
        raise OSError("disk full")
    assert path.read_text() == "first"
    with written_file(path) as file:
        file.write_text("second")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    """The other side of the link may be another disk, to which nothing can be renamed from here."""
    (tmp_path / "disk" / "out").mkdir(parents=True)
    folder, file = tmp_path / "here" / "out", tmp_path / "here" / "b.json"
    (tmp_path / "here").mkdir()
    folder.symlink_to(tmp_path / "disk" / "out")
    file.symlink_to(tmp_path / "disk" / "b.json")  # which is not there yet
    for content in ("first", "second"):
        with written_folder(folder, "run.json") as new:
            assert new.parent == tmp_path / "disk"
            (new / "run.json").write_text(content)
        with written_file(file) as new:
            new.write_text(content)
        assert (tmp_path / "disk" / "out" / "run.json").read_text() == content
        assert (tmp_path / "disk" / "b.json").read_text() == content
    assert folder.is_symlink() and file.is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["b.json", "out"]
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["b.json", "out"]


def test_a_folder_that_cannot_change_places_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path))
    with pytest.raises(InputError, match="name a folder inside it"):
        check_replaceable(tmp_path, "run.json")
    check_replaceable(tmp_path / "inside", "run.json")


def test_a_file_gets_its_folder_before_the_work_or_is_refused(tmp_path):
    prepare_file(tmp_path / "results" / "b.json")
    assert (tmp_path / "results").is_dir() and not list((tmp_path / "results").iterdir())
    with pytest.raises(InputError, match="is a folder"):
        prepare_file(tmp_path / "results")
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(InputError, match="none can be made"):
        prepare_file(tmp_path / "notes" / "b.json")


def test_a_folder_is_made_before_the_work_or_refused(tmp_path):
    for _ in range(2):
        prepare_folder(tmp_path / "windows" / "train")
    (tmp_path / "windows" / "train" / "shard").write_text("kept")
    prepare_folder(tmp_path / "windows" / "train")
    assert (tmp_path / "windows" / "train" / "shard").read_text() == "kept"
    with pytest.raises(InputError, match=r"shard exists and is no folder; choose another name"):
        prepare_folder(tmp_path / "windows" / "train" / "shard")
    with pytest.raises(InputError, match=r"shard/x cannot be made.*name another"):
        prepare_folder(tmp_path / "windows" / "train" / "shard" / "x")
    with pytest.raises(InputError, match="shard is no folder"):
        check_replaceable(tmp_path / "windows" / "train" / "shard" / "x" / "y", "run.json")


def test_files_are_as_open_to_others_as_any_whatever_a_library_made_of_them(tmp_path):
    (tmp_path / "plain").write_text("")
    with written_file(tmp_path / "closed") as partial:
        partial.write_text("")
        partial.chmod(0o600)
    assert (tmp_path / "closed").stat().st_mode == (tmp_path / "plain").stat().st_mode
