"""Arrays by name of numpy's and Matlab's files, without a pickle."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import InvalidInput


def read_numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    """.npz, or .npy as {"array": ...}. InvalidInput for arrays of objects, which are pickles."""
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            found = {"array": loaded}
        else:
            with loaded:
                found = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile, LookupError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the machine; a made-up place in the file is EINVAL
        why = (str(error).splitlines() or ["it is cut off"])[0][:200]
        raise InvalidInput(f"not a file of arrays alone: {why}") from error
    return _numbers(found.items())


def read_matlab_arrays(path: Path) -> dict[str, np.ndarray]:
    """.mat of version 4 to 7: arrays by name, those of a structure by dotted path. InvalidInput for version
    7.3, which is HDF5."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        loaded = loadmat(path)
    except NotImplementedError as error:
        raise InvalidInput("a .mat file of version 7.3; save it with -v7") from error
    except (MatReadError, ValueError, TypeError, LookupError) as error:
        raise InvalidInput(f"not a .mat file: {(str(error).splitlines() or ['cut off'])[0][:200]}") from error
    return _numbers(
        one for name, value in loaded.items() if not name.startswith("__") for one in _arrays_of(value, name)
    )


def _arrays_of(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """A structure of one element is walked through; cells, lists of structures, texts and functions stay
    behind."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names and value.size == 1:
        for field in value.dtype.names:
            yield from _arrays_of(value.reshape(-1)[0][field], f"{name}.{field}")
    elif not value.dtype.names:
        yield name, value


def _numbers(arrays: Any) -> dict[str, np.ndarray]:
    """Those of numbers, in this machine's byte order."""
    return {
        name: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
        for name, array in arrays
        if array.dtype.kind in "biuf"
    }
