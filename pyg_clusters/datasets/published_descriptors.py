"""Clusters without coordinates: the descriptors published with the code of DART, and a safe reader of npz files."""

import math
import pickle
import re
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.label_arguments import Processing
from pyg_clusters.errors import InputError, describe_error, one_line
from pyg_clusters.files import cache_folder
from pyg_clusters.frames import BadFrame
from pyg_clusters.units import KCAL_PER_MOL

SHELLS: str = "JKL"

ELEMENT_TYPE: re.Pattern[str] = re.compile(r"O8?|[iu][1248]|f[248]")
"""Accepted element types of arrays: objects, integers, floating-point numbers."""


class PublishedDescriptors(ClusterDataset):
    r"""Clusters from the npz file of the published code of `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al.
    2021, section 2.2): shell counts and energies, **no coordinates**.

    The file contains two object arrays. ``desc[b] = [tad_i, tad_j, tad_k, tad_l]`` has, for each atom of cluster b, its
    shell counts and the lists of the shell counts of its neighbours in the shells J, K and L; ``ener[b] = [energy]``
    is the binding energy in kcal/mol. No code in the file is executed.

    The file does not identify the neighbours. DART uses only their shell counts (Eqs. 2 to 4), and the cluster always
    contains an atom with these counts; each edge starts at the first such atom. DART predicts the same energy as from
    the true pairs, but the edges are not real pairs of atoms, and several edges may connect the same two atoms.

    A cluster has the attributes of :class:`ClusterDataset` except ``pos``, with its binding energy in eV as ``y [1]``
    and in a group of its own. It also has ``x [num_atoms, 3]`` (counts in the shells J, K, L), and on access
    ``edge_index [2, num_edges]`` (source j, target i) and ``edge_type [num_edges]``.

    Args:
        file (str or Path): Path of the npz file.
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/published_descriptors``
            in the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        on_bad (str): ``"stop"`` raises at a cluster whose lists contradict its counts, ``"skip"`` leaves such clusters
            out with a warning.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of
            :class:`~pyg_clusters.datasets.ClusterDataset`. Only ``transform`` receives the edges.

    Raises:
        InputError: If the file is missing, corrupted or has another layout, if it contains anything but arrays, numbers
            and plain containers, or if a cluster is inconsistent.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from pyg_clusters.models import DART
        >>> trimer = [[[1, 1, 0], [2, 0, 0], [1, 1, 0]], [[[2, 0, 0]], [[1, 1, 0], [1, 1, 0]], [[2, 0, 0]]],
        ...           [[[1, 1, 0]], [], [[1, 1, 0]]], [[], [], []]]
        >>> desc, ener = np.empty(1, dtype=object), np.empty(1, dtype=object)
        >>> desc[0], ener[0] = trimer, [-110.0]
        >>> folder = tempfile.mkdtemp()
        >>> np.savez(f"{folder}/trimer.npz", desc=desc, ener=ener)
        >>> data = PublishedDescriptors(f"{folder}/trimer.npz", root=folder)[0]
        >>> data.edge_index.tolist(), data.edge_type.tolist()
        ([[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 2, 2]], [0, 1, 0, 0, 0, 1])
        >>> batch = torch.zeros(3, dtype=torch.long)
        >>> DART()(data.z, data.pos, batch, x=data.x, edge_index=data.edge_index, edge_type=data.edge_type).shape
        torch.Size([1])
    """

    def __init__(
        self,
        file: str | Path,
        root: str | Path | None = None,
        *,
        on_bad: Literal["stop", "skip"] = "stop",
        **kwargs: Unpack[Processing],
    ):
        super().__init__(
            root if root is not None else cache_folder() / "published_descriptors",
            file,
            target="ener",
            on_bad=on_bad,
            **kwargs,
        )

    def get(self, idx: int) -> Data:
        data = super().get(idx)
        data.edge_index, data.edge_type = _edges(data.x, data.source_index)
        del data.source_index
        return data

    def _read(self) -> tuple[list[Data], list[str], dict[str, float]]:
        file = self.files[0]
        content = read_npz(file, ["desc", "ener"])
        desc = content["desc"]
        energies = _energies(content["ener"], file)
        if desc.ndim < 1 or len(desc) != len(energies) or not len(desc):
            raise InputError(f"{file}: desc is of shape {list(desc.shape)}, but ener has {len(energies)} energies")
        clusters: list[Data] = []
        for number, (parts, energy) in enumerate(zip(desc, energies, strict=True)):
            try:
                x, source = _graph(parts)
            except (TypeError, ValueError) as error:
                self._reader.note([BadFrame(str(file), number, one_line(error))])
                continue
            clusters.append(
                Data(
                    z=torch.full((len(x),), atomic_numbers["Ga"]),
                    x=torch.from_numpy(x).float(),
                    source_index=torch.tensor(source, dtype=torch.int16),
                    y=torch.tensor([energy / KCAL_PER_MOL], dtype=torch.float),
                    idx=torch.tensor([number]),
                    cluster_size=torch.tensor([len(x)]),
                    group=torch.tensor([len(clusters)]),
                )
            )
        self._reader.check([file], len(clusters))
        return clusters, [f"{file.name} {int(cluster.idx)}" for cluster in clusters], {}


def _edges(x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Build edges and their types from sources ordered by target, then by shell, in numbers given by the counts."""
    counts = x.long()
    target = torch.repeat_interleave(counts.sum(dim=1))
    edge_type = torch.repeat_interleave(torch.arange(counts.size(1)).repeat(counts.size(0)), counts.flatten())
    return torch.stack([source.long(), target]), edge_type


def _energies(ener: np.ndarray, file: Path) -> np.ndarray:
    """Energies in kcal/mol, ``[num_graphs]`` in double precision."""
    try:
        energies = np.array([np.asarray(entry, dtype=np.float64).item() for entry in ener])
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: ener does not have one energy for each cluster") from error
    wrong = np.flatnonzero(~np.isfinite(energies))
    if wrong.size:
        raise InputError(f"{file}, frame {wrong[0]}: the energy is {energies[wrong[0]]}; remove the cluster")
    return energies


def _graph(parts: Sequence) -> tuple[np.ndarray, list[int]]:
    """Return shell counts ``[num_atoms, 3]`` and the source of each edge, ordered by target, then by shell."""
    if len(parts) != len(SHELLS) + 1:
        raise ValueError(f"it has {len(parts)} parts instead of 4 (the atoms and their neighbours in J, K, L)")
    x = _rows(parts[0])
    if len(x) < 2:
        raise ValueError(f"it has {len(x)} atom(s), a cluster has at least two")
    lists = [[_rows(entries) for entries in part] for part in parts[1:]]
    for shell, of_atoms in zip(SHELLS, lists, strict=True):
        if len(of_atoms) != len(x):
            raise ValueError(f"it has {len(x)} atoms, but lists of {shell} neighbours for {len(of_atoms)}")
    for atom, of_shells in enumerate(zip(*lists, strict=True)):
        listed = [len(rows) for rows in of_shells]
        if listed != x[atom].tolist():
            raise ValueError(
                f"atom {atom} has the counts {x[atom].tolist()} in J, K, L, but {listed} neighbours are listed"
            )
    first = {counts: atom for atom, counts in reversed(list(enumerate(map(tuple, x.tolist()))))}
    neighbors = [tuple(row) for of_shells in zip(*lists, strict=True) for rows in of_shells for row in rows.tolist()]
    strange = next((list(counts) for counts in neighbors if counts not in first), None)
    if strange is not None:
        raise ValueError(f"a neighbour has the counts {strange} in J, K, L, but no atom does")
    return x, [first[counts] for counts in neighbors]


def _rows(entries: Sequence) -> np.ndarray:
    """Convert lists or arrays to shell counts ``[num_entries, 3]``, without rows of zero padding."""
    rows = entries.tolist() if isinstance(entries, np.ndarray) else list(entries)  # NumPy cannot convert object arrays
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 3)
    counts = numbers.round().astype(np.int64)
    wrong = (counts != numbers).any(axis=1) | (counts < 0).any(axis=1)
    if wrong.any():
        raise ValueError(f"{numbers[wrong][0]} are not counts")
    return counts[counts.any(axis=1)]


# Unpickling can call any importable function: numpy.load with allow_pickle=True executes arbitrary code from a file.
# Here the few names under which arrays, dtypes and scalars are pickled (before and since NumPy 2) resolve to classes of
# this module that validate their arguments; any other name raises an error. The functions of NumPy itself are not
# called either, because crafted dtype flags or shapes could make them interpret bytes as addresses.
def read_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an npz file safely, including object arrays.

    Object arrays may contain numeric arrays, numbers, strings, lists, tuples and dictionaries.

    Raises:
        InputError: If the file is corrupted or lacks an array, or if an array contains other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    except Exception as error:  # zipfile and zlib raise various errors for corrupted files
        reason = describe_error(error)
        raise InputError(f"{path}: not a complete npz file ({reason}); copy or download it again") from error
    for name in names:
        if name not in contents:
            raise InputError(f"{path}: no array {name!r}; found: {', '.join(contents) or 'none'}")
    return {name: _array(contents[name], f"{path}: {name}") for name in names}


def _array(content: bytes, where: str) -> np.ndarray:
    stream = BytesIO(content)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if not dtype.hasobject:
            return np.lib.format.read_array(BytesIO(content), allow_pickle=False)
        value = ArrayUnpickler(stream).load()
        if not isinstance(value, PickledArray) or value.shape != shape:
            raise pickle.UnpicklingError(f"not an array of shape {list(shape)}")
    except pickle.UnpicklingError as error:
        raise InputError(f"{where}: refused, {one_line(error)}; nothing of it was executed") from error
    except Exception as error:  # corrupted or crafted files raise various errors
        reason = describe_error(error)
        raise InputError(f"{where}: cannot be read ({reason}); copy or download the file again") from error
    return value.view(np.ndarray)


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of arrays, numbers, strings and plain containers; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        known = (module.replace("numpy._core", "numpy.core"), name)
        if known not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, where only arrays and plain containers may be")
        return STAND_INS[known]


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
    """Array that remains empty until its content has been validated."""

    def __new__(cls, *_: Any) -> "PickledArray":
        return super().__new__(cls, 0, dtype=np.uint8)

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


class PickledNumber:
    """Number from the bytes of a NumPy scalar."""

    def __new__(cls, kind: ElementType, content: bytes) -> Any:
        if not isinstance(kind, ElementType) or kind.dtype.hasobject or type(content) is not bytes:
            raise pickle.UnpicklingError("it holds a malformed number")
        (number,) = np.frombuffer(content, kind.dtype)
        return number.item()

    def __setstate__(self, state: Any):  # without it, a pickle could set attributes of this class
        raise pickle.UnpicklingError("it changes a number")


STAND_INS: dict[tuple[str, str], type | None] = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy.core.multiarray", "scalar"): PickledNumber,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): ElementType,
}
"""Replacement of each name that a pickle may use."""
