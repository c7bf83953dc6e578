"""Files that appear complete or not at all."""

import pytest

from nr_tracking.atomic import written_file


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
