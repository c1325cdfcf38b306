"""read_matrix(): the formats that users have, and what is said of a file that is none of them or damaged."""

import io
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_array

from common.base.errors import DataAbsent, DataError, MachineError
from common.data.matlab import read_matrix

CUBE = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
SPARSE = np.array([[0, 0, 5.0], [7, 0, 0]])


def save_version_73(file, **arrays) -> None:
    """As MATLAB writes them: the axes reversed, the class as an attribute, a block of its own before the HDF5 part."""
    with h5py.File(file, "w", userblock_size=512) as hdf5:
        for name, array in arrays.items():
            hdf5.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")
    with open(file, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")


def save_npy(file, cube) -> None:
    np.save(file, cube)


WRITERS = {
    "version 4": ("cube.mat", lambda file, cube: savemat(file, {"cube": cube}, format="4")),
    "version 5": ("cube.mat", lambda file, cube: savemat(file, {"cube": cube})),
    "version 5, compressed": ("cube.mat", lambda file, cube: savemat(file, {"cube": cube}, do_compression=True)),
    "version 7.3": ("cube.mat", lambda file, cube: save_version_73(file, cube=cube)),
    "NumPy": ("cube.npy", save_npy),
    "NumPy, in Fortran's order": ("cube.npy", lambda file, cube: save_npy(file, np.asfortranarray(cube))),
}


@pytest.mark.parametrize("vouched", [True, False])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_array(tmp_path, kind, vouched):
    name, write = WRITERS[kind]
    cube = CUBE[0].astype(float) if kind == "version 4" else CUBE  # which knows matrices only
    write(tmp_path / name, cube)
    found = read_matrix(tmp_path / name, "cube", vouched)
    assert found.dtype == cube.dtype and np.array_equal(found, cube)


def save_sparse_version_73(file, matrix) -> None:
    columns = csc_array(matrix)
    with h5py.File(file, "w") as hdf5:
        group = hdf5.create_group("sparse")
        group.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
        group["jc"] = columns.indptr.astype(np.uint64)
        if columns.nnz:
            group["data"], group["ir"] = columns.data, columns.indices.astype(np.uint64)


@pytest.mark.parametrize("matrix", [SPARSE, np.zeros((2, 3))])
@pytest.mark.parametrize(
    "write", [lambda file, matrix: savemat(file, {"sparse": csc_array(matrix)}), save_sparse_version_73]
)
def test_a_sparse_matrix_becomes_a_full_one(tmp_path, write, matrix):
    write(tmp_path / "sparse.mat", matrix)
    found = read_matrix(tmp_path / "sparse.mat", "sparse", vouched=True)
    assert isinstance(found, np.ndarray) and np.array_equal(found, matrix)


def test_an_empty_array_of_version_73_keeps_its_size(tmp_path):
    with h5py.File(tmp_path / "empty.mat", "w") as hdf5:
        hdf5["empty"] = np.array([0, 3], np.uint64)  # MATLAB writes the size, and marks it
        hdf5["empty"].attrs["MATLAB_empty"] = np.uint8(1)
    assert read_matrix(tmp_path / "empty.mat", "empty", vouched=True).shape == (0, 3)


def refused(file, variable="m", vouched=True) -> str:
    with pytest.raises(DataError) as told:
        read_matrix(file, variable, vouched)
    assert not isinstance(told.value, DataAbsent) and "\n" not in str(told.value)
    assert str(told.value).startswith(f"{file}: ")
    return str(told.value)


@pytest.mark.parametrize("vouched", [True, False])
def test_a_missing_variable_is_named_beside_those_there_are(tmp_path, vouched):
    savemat(tmp_path / "5.mat", {"cube": CUBE, "other": 1})
    save_version_73(tmp_path / "7.mat", cube=CUBE, other=np.ones((1, 1)))
    for name in ("5.mat", "7.mat"):
        assert "has no variable 'm', only cube, other." in refused(tmp_path / name, "m", vouched)


@pytest.mark.parametrize("value", [{"field": 1.0}, np.array([["a", 1.0]], object), "text"])
def test_a_struct_a_cell_and_text_are_refused(tmp_path, value):
    savemat(tmp_path / "other.mat", {"m": value})
    assert "m is not an array of numbers" in refused(tmp_path / "other.mat")


def test_a_struct_a_cell_and_text_of_version_73_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.mat", "w") as hdf5:
        hdf5.create_group("struct")["field"] = 1.0
        hdf5["text"] = np.array([[104], [105]], np.uint16)
        hdf5["text"].attrs["MATLAB_class"] = np.bytes_("char")
        hdf5["cell"] = np.array([[hdf5["text"].ref]], h5py.ref_dtype)
    for variable in ("struct", "text", "cell"):
        assert f"{variable} is not an array of numbers" in refused(tmp_path / "other.mat", variable)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "m.npy", np.array([print], object), allow_pickle=True)
    assert "cannot be read as a NumPy file" in refused(tmp_path / "m.npy")


@pytest.mark.parametrize("name", ["m.mat", "m.npy"])
@pytest.mark.parametrize("content", [b"", b"no matrices", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x93NUMPY" + bytes(9)])
def test_a_file_that_is_neither_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "cannot be read as a" in refused(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "nowhere.mat")
    assert "No such file" in refused(tmp_path / "nowhere.npy")


def written(write, *words, **how) -> bytes:
    file = io.BytesIO()
    write(file, *words, **how)
    return file.getvalue()


CONTENTS = {
    "plain": (".mat", written(savemat, {"m": CUBE})),
    "compressed": (".mat", written(savemat, {"m": CUBE}, do_compression=True)),
    "NumPy": (".npy", written(np.save, CUBE)),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_cut_off_anywhere_is_refused(tmp_path, kind):
    ending, whole = CONTENTS[kind]
    file = tmp_path / f"m{ending}"
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        refused(file)


def test_a_version_73_file_cut_off_is_refused(tmp_path):
    save_version_73(file := tmp_path / "m.mat", m=CUBE)
    whole = file.read_bytes()
    for end in range(600, len(whole), 200):
        file.write_bytes(whole[:end])
        refused(file)


def test_a_byte_gone_wrong_is_refused_or_gives_another_array(tmp_path):
    """Behind the header of a compressed file, which carries a checksum."""
    file, (_, whole) = tmp_path / "m.mat", CONTENTS["compressed"]
    told = 0
    for place in range(128, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_matrix(file, "m", vouched=True)
        except DataError:
            told += 1
    assert told


@pytest.mark.parametrize(("vouched", "said"), [(True, "memory."), (False, "memory, or is damaged.")])
def test_an_array_that_no_memory_holds_is_the_machines_fault(tmp_path, vouched, said):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    (tmp_path / "m.npy").write_bytes(header.getvalue())
    with pytest.raises(MachineError, match=f"m.npy: m does not fit into {said}"):
        read_matrix(tmp_path / "m.npy", "m", vouched)


def crashing() -> bytes:
    """An uncompressed file whose numbers have a type that does not exist, which SciPy follows out of its memory."""
    whole = bytearray(written(savemat, {"m": np.arange(12.0).reshape(3, 4)}))
    whole[176] ^= 0x01
    return bytes(whole)


def test_a_file_that_crashes_scipy_is_refused_and_ends_nothing(tmp_path):
    file = tmp_path / "m.mat"
    file.write_bytes(crashing())
    assert "the file is damaged and crashes its reader" in refused(file, vouched=False)


def test_a_reader_that_the_system_kills_is_the_machines_fault(tmp_path, monkeypatch):
    def killed(command, **how):
        return subprocess.CompletedProcess(command, -signal.SIGKILL, b"", b"")

    monkeypatch.setattr("common.data.matlab.subprocess.run", killed)
    with pytest.raises(MachineError, match="m may not fit into memory"):
        read_matrix(tmp_path / "m.mat", "m")


def test_the_crashing_file_does_crash_scipy(tmp_path):
    """Else the process of its own would be needless, and the test before would show nothing."""
    (tmp_path / "m.mat").write_bytes(crashing())
    read = "import sys, scipy.io; scipy.io.loadmat(sys.argv[1])"
    assert subprocess.run([sys.executable, "-c", read, str(tmp_path / "m.mat")]).returncode < 0
