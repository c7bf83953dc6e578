"""Archives of arrays are read whole or refused, whatever their headers claim."""

import errno
import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.arrays import mapped_arrays, read_arrays, temporary_arrays
from nr_tracking.types import InputError

ARRAYS = {"positions": np.arange(30, dtype=np.float32).reshape(5, 2, 3), "ids": np.arange(2), "names": np.array(["a"])}


def packed(path, save=np.savez):
    save(path, **ARRAYS)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_written_is_read(tmp_path, save):
    read = read_arrays(packed(tmp_path / "a.npz", save))
    assert read.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(read[name], values)


def test_a_header_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 100)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("huge.npy", member.getvalue() + bytes(64))
    tracemalloc.start()
    with pytest.raises(InputError, match="claims"):
        read_arrays(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", anything=np.array([{}], object))
    with pytest.raises(InputError, match="claims"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("reader", [read_arrays, mapped_arrays])
@settings(max_examples=60)
@given(cut=st.floats(0, 1), junk=st.binary(max_size=20))
def test_damage_is_an_error_that_names_the_file(tmp_path_factory, reader, cut, junk):
    folder = tmp_path_factory.mktemp("damage")
    data = bytearray(packed(folder / "a.npz").read_bytes())
    position = int(cut * len(data))
    data[position : position + max(len(junk), 1)] = junk
    (folder / "a.npz").write_bytes(data)
    try:
        read = reader(folder / "a.npz")
        for array in read.values():
            array.tobytes()  # each byte that is claimed is there
    except InputError as error:
        assert "a.npz" in str(error)
    else:
        assert set(read) <= set(ARRAYS) or len(read) <= 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mapped_arrays_are_those_that_are_read_and_leave_the_file_alone(tmp_path, save):
    before = packed(tmp_path / "a.npz", save).read_bytes()
    mapped = mapped_arrays(tmp_path / "a.npz")
    for name, values in read_arrays(tmp_path / "a.npz").items():
        assert mapped[name].dtype == values.dtype
        np.testing.assert_array_equal(mapped[name], values)
    mapped["positions"][:] = 7
    assert (tmp_path / "a.npz").read_bytes() == before
    np.savez(tmp_path / "b.npz", none=np.empty((0, 3)), across=np.asfortranarray(ARRAYS["positions"][0]))
    other = mapped_arrays(tmp_path / "b.npz")
    assert other["none"].shape == (0, 3)
    np.testing.assert_array_equal(other["across"], ARRAYS["positions"][0])


def test_arrays_on_disk_are_gone_afterwards(tmp_path):
    with temporary_arrays(tmp_path) as empty:
        array = empty((5, 3), np.float32, np.nan)
        assert np.isnan(array).all() and any(tmp_path.iterdir())
        array[2] = 1
        assert array.sum(axis=1)[2] == 3 and empty((0, 3), np.int64, 0).shape == (0, 3)
    assert not any(tmp_path.iterdir())


def test_a_disk_without_room_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    """Writing to what is mapped of a file without room kills the process, and with it a live node."""

    def full(file, start, size):
        assert size >= 60
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with temporary_arrays(tmp_path) as empty, pytest.raises(OSError, match="no room"):
        empty((5, 3), np.float32, np.nan)
    assert not any(tmp_path.iterdir())
