"""Data sets from files of clusters."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_clusters.datasets.label_arguments import LabelArguments
from pyg_clusters.datasets.label_reading import report_skipped
from pyg_clusters.datasets.label_table import LabelTable
from pyg_clusters.errors import InputError
from pyg_clusters.files import atomic_write, file_fingerprint, waiting_lock
from pyg_clusters.frames import BadFrame, FrameBlock, expand_paths
from pyg_clusters.frames.checks import atom_numbers, group_labels, numbers, unrounded
from pyg_clusters.frames.join import reporting_joined
from pyg_clusters.frames.paths import check_named_once
from pyg_clusters.geometry import sizes_to_ptr
from pyg_clusters.nn.output_scale import fit_references, in_needed_precision
from pyg_clusters.options import Fragments
from pyg_clusters.positions import centred
from pyg_clusters.units import LENGTH_UNITS, unit_of

FORMAT_VERSION: int = 6  # version of processed files; increase it whenever their content changes

ADDRESS: re.Pattern[str] = re.compile(r" at 0x[0-9a-fA-F]+")  # in the default repr of an object


class ClusterDataset(LabelArguments, InMemoryDataset):
    """Data set of clusters and labels from files: extended XYZ and every other format that ASE reads.

    The files are read once and saved as tensors in ``root/processed``. The name of the processed file contains a hash
    of the input files and of all arguments that affect it; changed files are read again.

    Each cluster is a :class:`~torch_geometric.data.Data` with

    - ``z [num_atoms]`` (long): atomic numbers
    - ``pos [num_atoms, 3]``: positions in Å relative to their mean (centred before rounding to single precision)
    - ``y [1]``: target, an energy in eV minus the references; double precision if single precision would round an
      energy of the data set by more than 0.1 meV. ``[num_atoms]`` for a target per atom
    - ``idx [1]`` (long): index of the cluster over all files
    - ``cluster_size [1]`` (long): number of atoms
    - ``group [1]`` (long): index of its group in :attr:`group_names`
    - ``force [num_atoms, 3]`` in eV/Å, if requested
    - additional values ``[1]`` and ``[num_atoms, ...]`` to keep; double precision if single precision would change one
      by more than 0.0001

    Args:
        root (str or Path): Folder for the processed file.
        files (str or Path, or sequence of these): Files, folders and patterns
            (:func:`~pyg_clusters.frames.expand_paths`).
        target (str): Name of the target in the files, a value per cluster (an energy in eV) or per atom.
            ``"comment"`` reads comment lines of XYZ files that consist of a single number.
        labels (str or Path, optional): Separate table of energies by file or frame (see ``LabelTable``); ``target`` is
            then the name of its column.
        per_atom (bool): Whether the target is a value per atom (such as a shielding in ppm).
        energy_unit (str): Unit of the target and of the energy in the forces: a name of ``ase.units`` such as
            ``"Hartree"`` or ``"kcal/mol"``. They are converted to eV.
        length_unit (str): Unit of the positions, the cells and the length in the forces, such as ``"Bohr"``. They
            are converted to Å. Leave it out for files that state their unit, which are converted by their reader.
        references (dict, optional): Energies of isolated atoms in eV by element symbol. Their sum over a cluster is
            subtracted from its energy in double precision. ``"fit"`` determines them by a least-squares fit to all
            energies; ``"isolated_atoms"`` takes them from frames of one atom; see :attr:`references`. A model trained
            on the data set adds them again, and its energies are on the scale of the labels.
        group (str, optional): Name of a value per cluster that identifies groups of related clusters. By default each
            file is a group, and :func:`~pyg_clusters.datasets.group_split` splits by trajectory.
        keep (sequence of str or dict): Names of additional values per cluster (such as a temperature), or a mapping
            from their names in the files to their names in the data.
        keep_atoms (sequence of str or dict): Names of additional values per atom (such as charges), or a mapping as for
            ``keep``.
        forces (bool or str): Whether to read the forces, or their name in the files if it is not ``forces``.
        minima (sequence of str or Path): Files of local minima, whose forces are set to zero and not read; ``"all"``
            for all files.
        minima_target (str, optional): Name of the target in the files of ``minima``, if it differs.
        fragments (str): ``"refuse"`` raises at a frame that consists of several pieces, ``"keep"`` keeps the pieces (in
            a periodic frame at their nearest images).
        on_missing (str): ``"stop"`` raises at a frame without a label or with one that is not finite, ``"skip"`` leaves
            such frames out and lists them in :attr:`skipped`.
        on_bad (str): ``"stop"`` raises at a frame that cannot be used, ``"skip"`` leaves out such frames, and frames
            with a label that is not finite, and lists them in :attr:`skipped`.
        transform (callable, optional): Transform applied at every access.
        pre_transform (callable, optional): Transform applied before clusters are saved. It is identified by its
            ``repr`` and attributes; if they contain an address (as for a function), the files are read every time.
        pre_filter (callable, optional): Filter of the clusters to save, identified in the same way.
        force_reload (bool): Whether to read the files even if a processed file exists.

    Raises:
        InputError: If a file is missing or empty, a frame cannot be used, or a label is missing (the message lists the
            labels found) or not finite.

    Example:
        >>> import tempfile
        >>> from ase.cluster import Icosahedron
        >>> from pyg_clusters.frames import write_extxyz
        >>> cluster = Icosahedron("Na", 2)
        >>> cluster.info["REF_energy"] = -13.2
        >>> folder = tempfile.mkdtemp()
        >>> write_extxyz(f"{folder}/sodium.extxyz", [cluster])
        >>> dataset = ClusterDataset(folder, f"{folder}/sodium.extxyz", target="REF_energy", references={"Na": -1.0})
        >>> dataset[0].y
        tensor([-0.2000])
    """

    def __init__(
        self,
        root: str | Path,
        files: str | Path | Sequence[str | Path],
        target: str = "energy",
        *,
        per_atom: bool = False,
        labels: str | Path | None = None,
        energy_unit: str = "eV",
        length_unit: str = "Angstrom",
        references: Mapping[str, float] | Literal["fit", "isolated_atoms"] | None = None,
        group: str | None = None,
        keep: Sequence[str] | Mapping[str, str] = (),
        keep_atoms: Sequence[str] | Mapping[str, str] = (),
        forces: bool | str = False,
        minima: Sequence[str | Path] | Literal["all"] = (),
        minima_target: str | None = None,
        fragments: Fragments = "refuse",
        on_missing: Literal["stop", "skip"] = "stop",
        on_bad: Literal["stop", "skip"] = "stop",
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ):
        self.files = _absolute(files)
        self.labels = None if labels is None else Path(labels).expanduser().absolute()
        self.minima = list(self.files) if minima == "all" else _absolute(minima)
        self.minima_target = minima_target
        self.length_unit = unit_of(length_unit, LENGTH_UNITS, "length_unit")
        self._check_files(per_atom)
        arguments = (target, per_atom, energy_unit, references, group, keep, keep_atoms, forces)
        self.take_label_arguments(*arguments, fragments, on_missing, on_bad)
        self._file_names = self._names()
        self._checksums = [file_fingerprint(file) for file in self.files]
        super().__init__(str(root), transform, pre_transform, pre_filter, log=False, force_reload=force_reload)
        self._load()

    def _check_files(self, per_atom: bool):
        if not self.files:
            raise InputError("no files given; name at least one")
        if strange := [file for file in self.minima if file not in self.files]:
            raise InputError(f"minima names {strange[0]}, which is not among the files")
        check_named_once(self.files)
        if missing := [file for file in self.files if not file.is_file()]:
            raise InputError(f"{missing[0]}: no such file")
        if self.labels is not None and per_atom:
            raise InputError(f"{self.labels}: a table has targets per cluster, not per atom; leave per_atom out")

    @property
    def raw_file_names(self) -> list[str]:
        return [str(file) for file in self.files]

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of the files and of all arguments that determine the clusters."""
        shaped_by = {
            "format": [FORMAT_VERSION, type(self).__name__],
            "files": self._checksums,
            "names": list(self._file_names.values()) if self.group_key is None or self.labels else [],
            "labels": file_fingerprint(self.labels) if self.labels else None,
            "target": [self.target, self.per_atom, self._references],
            "keys": [self.group_key, self.forces and self.forces_key, self.fragments, self.on_missing, self.on_bad],
            "units": [self.energy_unit, self.length_unit],
            "keep": [list(self.keep.items()), list(self.keep_atoms.items())],
            **({"minima": [self.files.index(file) for file in self.minima]} if self.minima else {}),
            **({"minima_target": self.minima_target} if self.minima_target else {}),
            "pre": [ADDRESS.sub("", fingerprint_of(call)) for call in (self.pre_filter, self.pre_transform)],
        }
        return hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=float).encode()).hexdigest()

    @property
    def processed_file_names(self) -> list[str]:
        return [f"clusters_{self.fingerprint[:16]}.pt"]

    @property
    def sizes(self) -> Tensor:
        """Number of atoms of each cluster, ``[num_graphs]`` (long)."""
        return self._of_clusters("cluster_size")

    @property
    def groups(self) -> Tensor:
        """Index of the group of each cluster, ``[num_graphs]`` (long)."""
        return self._of_clusters("group")

    def _of_clusters(self, name: str) -> Tensor:
        """Stored values of the clusters of this data set, which may be a subset."""
        return self._data[name][torch.as_tensor(list(self.indices()), dtype=torch.long)]

    def _process(self):
        # PyG's method also saves the repr of pre_transform and pre_filter to detect changes. This is unnecessary,
        # because the name of the processed file contains a hash of them.
        anonymous = any(ADDRESS.search(fingerprint_of(call)) for call in (self.pre_filter, self.pre_transform))
        renewed, processed = self.force_reload or anonymous, Path(self.processed_paths[0])
        if renewed or not processed.exists():
            with waiting_lock(processed):  # other processes wait for the first one and use its result
                if renewed or not processed.exists():
                    self.process()

    def process(self):
        """Read the files and save the clusters."""
        table = LabelTable(self.labels, self.files, self.target, self.energy_unit) if self.labels else None
        self._reader = self.label_reader(table)
        clusters, group_names, references = self._read()
        if self.pre_filter is not None:
            clusters = [cluster for cluster in clusters if self.pre_filter(cluster)]
        if not clusters:
            raise InputError(f"{self.files[0]}: pre_filter removes all clusters")
        if self.pre_transform is not None:
            clusters = [self.pre_transform(cluster) for cluster in clusters]
            for cluster in clusters:
                if isinstance(cluster, Data):  # otherwise collate raises an error
                    cluster.cluster_size = torch.tensor([cluster.num_nodes])
        data, slices = self.collate(clusters)
        content = {"data": data.to_dict(), "slices": slices, "group_names": group_names, "references": references}
        content["electronic_state"] = self._reader.state or (0, False)
        content["skipped"] = [(bad.file, bad.number, bad.reason) for bad in self._reader.skipped]
        with atomic_write(self.processed_paths[0]) as temporary, open(temporary, "wb") as stream:
            torch.save(content, stream)

    def _load(self):
        path = self.processed_paths[0]
        try:
            content = torch.load(path, weights_only=True)
            self._data, self.slices = Data.from_dict(content["data"]), content["slices"]
            self.group_names: list[str] = content["group_names"]
            """Names of the groups by index, in the order of appearance."""
            self.references: dict[str, float] = content["references"]
            """Reference energy of each element in eV per atom, which was subtracted from the energies."""
            self.electronic_state: tuple[int, bool] = content["electronic_state"]
            """Charge of all clusters in e, and whether one of them is in a state other than the lowest spin."""
            self.skipped: list[BadFrame] = [BadFrame(*bad) for bad in content["skipped"]]
            """Skipped frames, with ``on_missing="skip"`` or ``on_bad="skip"``."""
        except Exception as error:  # torch raises various errors for corrupted files
            raise InputError(f"{path}: is corrupted; delete it or pass force_reload=True") from error
        report_skipped(self.skipped)

    def _read(self) -> tuple[list[Data], list[str], dict[str, float]]:
        blocks = list(reporting_joined(self._blocks()))
        self._reader.check(self.files, len(blocks))
        z = torch.from_numpy(np.concatenate([block.z for block in blocks])).long()
        pos = torch.from_numpy(np.concatenate([centred(block.pos, block.ptr) for block in blocks])).float()
        sizes = torch.from_numpy(np.concatenate([block.sizes for block in blocks])).long()
        ptr = sizes_to_ptr(sizes)

        target = torch.from_numpy(np.concatenate([self._target_of(block) for block in blocks]))
        isolated = {symbol: energy for symbol, (energy, _) in self._reader.atoms.items()}
        elements = z.unique().tolist()
        references = self.find_references(elements, isolated, lambda: fit_references(z, ptr, target))
        if references:
            target = self.relative_to(references, target, z, ptr)
            self.check_energies(target, sizes, references)
        if not self.per_atom and (problem := self.zero_problem(z, ptr, target)):
            warnings.warn(problem, stacklevel=2)
        groups = np.concatenate([self._groups_of(block) for block in blocks])
        number_of_name = {name: number for number, name in enumerate(dict.fromkeys(groups.tolist()))}
        per_cluster = {
            "idx": torch.arange(sizes.numel()),
            "cluster_size": sizes,
            "group": torch.tensor([number_of_name[name] for name in groups.tolist()]),
        }
        for key, name in self.keep.items():
            per_cluster[name] = torch.from_numpy(unrounded([numbers(block, key) for block in blocks]))
        per_atom = {"z": z, "pos": pos}
        if self.forces:
            per_atom["force"] = torch.from_numpy(np.concatenate([self._forces_of(block) for block in blocks])).float()
        for key, name in self.keep_atoms.items():
            per_atom[name] = torch.from_numpy(unrounded([atom_numbers(block, key, single=False) for block in blocks]))
        if self.per_atom:
            per_atom["y"] = target.float()
        else:
            per_cluster["y"] = in_needed_precision(target)

        atoms = {key: values.split(sizes.tolist()) for key, values in per_atom.items()}
        rows = {key: values.view(-1, 1).unbind(0) for key, values in per_cluster.items()}
        parts = atoms | rows
        clusters = [Data(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True)]
        return clusters, list(number_of_name), references

    def _blocks(self) -> Iterator[FrameBlock]:
        """Yield blocks of the usable frames, with their labels."""
        for file in self.files:
            labels = self.labels_of_files(self._target_in(file), self._has_forces(file), self.length_unit)
            yield from self._reader.blocks(file, labels)

    def _has_forces(self, file: Path) -> bool:
        return self.forces and file not in self.minima

    def _forces_of(self, block: FrameBlock) -> np.ndarray:
        if not self._has_forces(Path(block.file)):
            return np.zeros_like(block.pos)
        return atom_numbers(block, self.forces_key, single=False) * (self.energy_unit / self.length_unit)

    def _target_in(self, file: Path) -> str:
        return self.minima_target if self.minima_target and file in self.minima else self.target

    def _target_of(self, block: FrameBlock) -> np.ndarray:
        target = self._target_in(Path(block.file))
        return (atom_numbers if self.per_atom else numbers)(block, target)

    def _names(self) -> dict[Path, str]:
        """Name of each file, with as many parent folders as needed to make the names unique."""
        for depth in range(1, max(len(file.parts) for file in self.files)):
            names = {file: "/".join(file.parts[-depth:]) for file in self.files}
            if len(set(names.values())) == len(names):
                return names
        return {file: str(file) for file in self.files}

    def _groups_of(self, block: FrameBlock) -> np.ndarray:
        if self.group_key is None:
            return np.full(len(block), self._file_names[Path(block.file)])
        return group_labels(block, self.group_key)


def _absolute(files: str | Path | Sequence[str | Path]) -> list[Path]:
    names = [files] if isinstance(files, (str, Path)) else files
    return [file.absolute() for file in expand_paths([Path(file).expanduser() for file in names])]


def fingerprint_of(value: object, within: tuple[object, ...] = ()) -> str:
    """Describe a transform and its parameters as text, which contains an address if they are unknown.

    Values that contain the described one are in ``within``; they are not described again.
    """
    if any(value is outer for outer in within):
        return f"the {type(value).__name__} itself"
    described = partial(fingerprint_of, within=(*within, value))
    if isinstance(value, Tensor | np.ndarray):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        return f"array({array.dtype}, {array.shape}, {hashlib.sha256(array.tobytes()).hexdigest()})"
    if isinstance(value, list | tuple | set | frozenset):
        parts = list(map(described, value))  # the order of a set differs between processes
        return f"{type(value).__name__}({', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str | int | float | bool | None | type):
        return repr(value)
    if isinstance(value, MethodType):
        return f"{value.__func__.__qualname__} {described(value.__self__)}"
    if isinstance(value, partial):
        return f"partial {described([value.func, value.args, value.keywords])}"
    content = getattr(value, "__dict__", None)
    return f"{value!r} {described(content)}" if content else repr(value)
