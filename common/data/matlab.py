"""Reading one array from a MATLAB or NumPy file."""

import io
import os
import signal
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
from scipy.io.matlab import MatReadError

from common.base import paths
from common.base.errors import DAMAGED, DataError, MachineError, UserError, memory_told

# What NumPy, SciPy and h5py raise on a file that is damaged or in another format.
UNREADABLE = (*DAMAGED, MatReadError, tokenize.TokenError)


def read_matrix(path: Path, variable: str, vouched: bool = False) -> np.ndarray:
    """One array of numbers or booleans from a .mat file of version 4 to 7.3, or from an .npy file.

    Its axes are in MATLAB's order. A sparse matrix becomes a full one.

    Args:
        variable: its name in the .mat file; an .npy file has one array, without a name.
        vouched: a checksum has shown that the file is whole. Any other is read in a process of its own,
            since a damaged file can crash SciPy's compiled code.

    Raises:
        DataError: the file cannot be read, lacks the variable, or holds something other than numbers under its name.
        MachineError: it does not fit into memory, or so it says.
    """
    return _read(path, variable, vouched) if vouched else _read_apart(path, variable)


def _read_apart(path: Path, variable: str) -> np.ndarray:
    command = [sys.executable, "-P", "-m", "common.data.matlab", str(path), variable]
    child = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": paths.python_path()})
    for kind in (DataError, MachineError):
        if child.returncode == kind.code:
            raise kind(child.stderr.decode().strip())
    if child.returncode == -signal.SIGKILL:  # by the system: a crash is another signal
        raise MachineError(f"{path}: its reader was killed; {variable} may not fit into memory.")
    if child.returncode < 0:
        raise DataError(f"{path}: cannot be read: the file is damaged and crashes its reader.")
    if child.returncode:
        raise RuntimeError(child.stderr.decode())
    return np.load(io.BytesIO(child.stdout), allow_pickle=False)


def _read(path: Path, variable: str, vouched: bool = False) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        else:
            found = _from_mat_file(path, variable)
    except MemoryError:
        damaged = "" if vouched else ", or is damaged"
        raise MachineError(f"{path}: {variable} does not fit into memory{damaged}.") from None
    except UNREADABLE as error:
        kind = "NumPy" if path.suffix == ".npy" else "MATLAB"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a {kind} file ({reason}).") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biufc":
        raise DataError(f"{path}: {variable} is not an array of numbers.")
    return found


def _from_mat_file(path: Path, variable: str) -> object:
    """Version 4 or 5 by SciPy, 7.3 by h5py."""
    import h5py
    from scipy.io import loadmat, whosmat
    from scipy.sparse import issparse

    if h5py.is_hdf5(path):
        return _from_hdf5(path, variable)
    content = loadmat(str(path), variable_names=[variable])
    if variable not in content:
        raise _no_such(path, variable, [name for name, _, _ in whosmat(path)])
    found = content[variable]
    return found.toarray() if issparse(found) else found


def _from_hdf5(path: Path, variable: str) -> object:
    """Version 7.3. HDF5 counts axes from the other end; what MATLAB means by an entry is in its attributes."""
    import h5py
    from scipy.sparse import csc_array

    with h5py.File(path, locking=False) as file:  # nobody writes it; and not every disk has locks
        if variable not in file:
            raise _no_such(path, variable, [name for name in file if not name.startswith("#")])
        entry = file[variable]
        if "MATLAB_sparse" in entry.attrs:
            starts = entry["jc"][()]
            rows_of = entry["ir"][()] if "ir" in entry else np.empty(0, int)  # absent where everything is zero
            values = entry["data"][()] if "data" in entry else np.empty(0)
            return csc_array((values, rows_of, starts), shape=(entry.attrs["MATLAB_sparse"], len(starts) - 1)).toarray()
        if isinstance(entry, h5py.Group) or entry.attrs.get("MATLAB_class") == b"char":
            return None
        if entry.attrs.get("MATLAB_empty"):  # it then holds the size
            return np.empty(entry[()].astype(int))
        return entry[()].T


def _no_such(path: Path, variable: str, there: list[str]) -> DataError:
    return DataError(f"{path}: has no variable {variable!r}, only {', '.join(there) or 'nothing'}.")


def _main(path: str, variable: str) -> None:
    try:
        with memory_told():
            content = io.BytesIO()
            np.save(content, _read(Path(path), variable), allow_pickle=False)
    except UserError as error:
        sys.stderr.write(str(error))
        sys.exit(error.code)
    sys.stdout.buffer.write(content.getvalue())


if __name__ == "__main__":
    _main(*sys.argv[1:])
