"""NumPy archives with object arrays, read without executing any code in them.

A pickle can name any function and have it called: :func:`numpy.load` with ``allow_pickle=True`` runs whatever the
author of a file wanted. Here the few names under which arrays, their element types and numbers are pickled (before and
since NumPy 2) resolve to objects of this module, which validate their arguments; any other name is refused. Not even
the functions of NumPy are called: the flags of an element type or a shape in a crafted file could make them read bytes
as addresses.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from pyg_clusters.errors import InputError, describe_error, one_line

ELEMENT_TYPE: re.Pattern[str] = re.compile(r"O[48]?|b1|[iu][1248]|f[248]|[SU]\d{1,4}")
"""Accepted element types of arrays: objects, booleans, integers, floating-point numbers, short strings."""

HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an npz file, also of objects: NumPy arrays, numbers, strings, lists, tuples, dictionaries.

    Args:
        path: The file.
        names: Names of the arrays to read.

    Raises:
        InputError: If there is no such file, it is damaged or lacks an array, or an array contains anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [member.removesuffix(".npy") for member in archive.namelist()]
            for name in names:
                if name not in found:
                    raise InputError(f"{path}: no array {name!r}; found: {', '.join(found) or 'none'}")
            return {name: _read_npy(archive.read(f"{name}.npy"), f"{path}: {name}") for name in names}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds for a damaged file
        raise InputError(f"{path}: not a whole npz file ({_reason(error)}); copy or download it again") from error


def _read_npy(content: bytes, where: str) -> np.ndarray:
    stream = BytesIO(content)
    try:
        shape, _, dtype = HEADER_READERS[np.lib.format.read_magic(stream)](stream)
        if not dtype.hasobject:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
        value = ArrayUnpickler(stream).load()
        if not isinstance(value, PickledArray) or value.shape != shape:
            raise pickle.UnpicklingError(f"not an array of shape {list(shape)}")
    except pickle.UnpicklingError as error:
        raise InputError(f"{where}: refused, {_reason(error)}; nothing of it was executed") from error
    except Exception as error:  # the readers raise many kinds for a damaged or crafted file
        raise InputError(f"{where}: cannot be read ({_reason(error)}); copy or download the file again") from error
    return value.view(np.ndarray)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of arrays, numbers, strings and plain containers; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, where only arrays and plain containers may be")
        return STAND_INS[module, name]


class StandIn:
    """Replacement of a function of NumPy by one of this module; a pickle cannot modify it."""

    __slots__ = ("_function",)

    def __init__(self, function: Any = None):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any):
        raise pickle.UnpicklingError("it changes a function")


class ElementType:
    """Element type of an array, pickled as its code and its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: Any):
        if not isinstance(code, str) or not ELEMENT_TYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds elements of the type {code!r}")
        self.dtype = np.dtype(object if code[0] == "O" else code)

    def __setstate__(self, state: Any):
        _, order, *parts = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("it holds elements of a compound type")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray(np.ndarray):
    """Array whose content is checked before it is set."""

    def __setstate__(self, state: Any):
        *_, shape, kind, in_columns, content = state
        if not isinstance(kind, ElementType) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("it holds a malformed array")
        if any(type(length) is not int or length < 0 for length in shape):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
        unit, expected = (1, list) if kind.dtype.hasobject else (kind.dtype.itemsize, bytes)
        if type(content) is not expected or len(content) != unit * math.prod(shape):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape} with other content")
        super().__setstate__((1, shape, kind.dtype, bool(in_columns), content))  # type: ignore[arg-type]


def _array(*_: Any) -> PickledArray:
    """An empty array, whose content follows."""
    return PickledArray(0, dtype=np.uint8)


def _number(kind: ElementType, content: bytes) -> Any:
    """The number or string of the bytes of a NumPy scalar."""
    if not isinstance(kind, ElementType) or kind.dtype.hasobject or type(content) is not bytes:
        raise pickle.UnpicklingError("it holds a malformed number")
    (number,) = np.frombuffer(content, kind.dtype)
    return number.item()


def _encoded(text: str, encoding: str) -> bytes:
    """The bytes that old protocols write as text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes something else than bytes")
    return text.encode("latin-1")


STAND_INS: dict[tuple[str, str], StandIn] = {
    ("numpy.core.multiarray", "_reconstruct"): StandIn(_array),
    ("numpy._core.multiarray", "_reconstruct"): StandIn(_array),
    ("numpy.core.multiarray", "scalar"): StandIn(_number),
    ("numpy._core.multiarray", "scalar"): StandIn(_number),
    ("numpy", "ndarray"): StandIn(),
    ("numpy", "dtype"): StandIn(ElementType),
    ("_codecs", "encode"): StandIn(_encoded),
}
"""Replacement of each name that a pickle may use."""


def _reason(error: Exception) -> str:
    return one_line(error) if isinstance(error, pickle.UnpicklingError) else describe_error(error)
