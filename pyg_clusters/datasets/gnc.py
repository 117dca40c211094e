"""The gallium clusters of the DART paper, from files that the user has downloaded."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Unpack

import numpy as np
import torch
from ase import Atoms
from ase.units import Hartree
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.datasets.card import Processing
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.gnc_files import (
    EnergySource,
    Structure,
    energies_of,
    files_below,
    gather,
    is_table,
    read_structures,
)
from pyg_clusters.datasets.splits import Split, random_split
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.units import KCAL_PER_MOL

UNITS: dict[str, float] = {"eV": 1.0, "kcal/mol": 1 / KCAL_PER_MOL, "hartree": Hartree}
"""Units of energy in eV."""

GALLIUM_PER_ATOM: tuple[float, float] = (-3.0, -2.0)
"""Between these lies the binding energy per atom, in eV, of any gallium cluster of these sizes (GNC: about -2.5)."""

MAX_DEVIATION: float = 0.4
"""A binding energy per atom further from the median than this, in eV, is an error in the file: isomers of all sizes
are within 0.2 eV."""

NUM_STRUCTURES: int = 6851
SIZES: tuple[int, int] = (31, 70)
LARGEST: int = 70
NUM_HELD_OUT: int = 656

NO_ENERGY: dict[EnergySource, str] = {
    "table": "no row of a table has an energy for it",
    "comment": "no energy in its comment line {!r}",
    "name": "no energy in the name of the file",
}

HOW_TO_GET: str = (
    "download the data set GNC_31-70 from figshare (6,851 gallium clusters; linked from the supplementary information "
    "of Modee et al., Phys. Chem. Chem. Phys. 2021, https://doi.org/10.1039/d1cp02956h) and put it there, as it comes "
    "or unpacked"
)


class GNC(ClusterDataset):
    r"""GNC_31-70: 6,851 low-energy isomers of Ga31 to Ga70 with binding energies by DFT (PBE, PAW, VASP), the data of
    `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al. 2021, section 2.1).

    The data cannot come with this package: **download the figshare archive and put it, packed or not, into**
    ``root/raw``. It is read in any of these forms, also in folders and in archives (``.zip``, ``.tar``, ``.tar.gz``)
    within each other:

    - structures as (extended) XYZ of one or many frames, POSCAR or CONTCAR; a periodic box is taken away, and a cluster
      that its boundary cuts is joined;
    - energies in the comment line (``energy=-73.2``, ``E = -73.2 eV``, a lone number), in a table (``.csv``, ``.tsv``,
      ``.txt``, ``.dat``) with the name of the file and its energy in a row, or in the name of the file
      (``Ga31_17_-73.2.xyz``). The one that most structures have is taken for all.

    The numbers in the paper do not add up: 6,851 structures less 285 of Ga70 are 6,566, of which 656 for validation and
    656 for test leave 5,254 for training, where it says 5,265 and elsewhere 5,256 (and 655 for 656).
    :meth:`paper_split` takes 656 and 656, and trains on what is left.

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å, ``y [1]`` (binding energy in eV), ``idx [1]``,
    ``cluster_size [1]`` and ``group [1]``, a group of its own: ``group_names`` has file and frame of each.

    Args:
        root (str or Path): Folder with the files in its folder ``raw``.
        unit (str): Unit of the energies in the files, ``"eV"``, ``"kcal/mol"`` or ``"hartree"``. A wrong one is
            noticed by the energy per atom.
        energy_from (str): Where the energies are: ``"table"``, ``"comment"``, ``"name"``, or ``"auto"``.
        energy_key (str, optional): What the energy is called in the comment line or the first row of the table, where
            the usual names mislead.
        per_atom_energies (bool): Whether the energies are per atom.
        positive_is_bound (bool): Whether the energies are positive for bound clusters.
        references (dict, optional): Energy in eV of an isolated atom, ``{"Ga": ...}``, for files with total energies.
        on_bad (str): ``"stop"`` raises at the first structure that cannot be used, ``"skip"`` leaves such structures
            out and warns of them.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.

    Raises:
        InputError: If there are no files (the message says what to download), an archive is damaged or not safe to
            unpack, a structure cannot be used or has no energy, or the energies cannot be binding energies of gallium
            in this unit.

    Example:
        >>> import tempfile
        >>> from pyg_clusters.datasets import GalliumClusters
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "raw").mkdir()
        >>> cluster = GalliumClusters()[0]
        >>> lines = [f"Ga {x} {y} {z}" for x, y, z in cluster.pos.tolist()]
        >>> text = "\n".join([str(len(lines)), f"E = {cluster.y.item()} eV", *lines])
        >>> _ = (folder / "raw" / "isomer.xyz").write_text(text)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # it says that this is not all of GNC
        ...     GNC(folder)[0].y
        tensor([-70.6204])
    """

    def __init__(
        self,
        root: str | Path,
        *,
        unit: Literal["eV", "kcal/mol", "hartree"] = "eV",
        energy_from: EnergySource | Literal["auto"] = "auto",
        energy_key: str | None = None,
        per_atom_energies: bool = False,
        positive_is_bound: bool = False,
        references: Mapping[str, float] | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        **kwargs: Unpack[Processing],
    ):
        _check_choice("unit", unit, UNITS)
        _check_choice("energy_from", energy_from, ("auto", "table", "comment", "name"))
        _check_choice("on_bad", on_bad, ("stop", "skip"))
        self.unit = unit
        self.energy_from = energy_from
        self.energy_key = energy_key
        self.per_atom_energies = per_atom_energies
        self.positive_is_bound = positive_is_bound
        self.on_bad = on_bad
        self._energy_of_atom = (references or {}).get("Ga", 0.0)
        self._raw = Path(root).expanduser().absolute() / "raw"
        files = files_below(self._raw)
        if not files:
            raise InputError(f"{self._raw}: no files; {HOW_TO_GET}")
        super().__init__(
            root,
            files,
            target="energy",
            group="name",
            references=references,
            on_bad=on_bad,
            **kwargs,
        )

    @property
    def fingerprint(self) -> str:
        files = [file.relative_to(self._raw).as_posix() for file in self.files]
        energies = [self.unit, self.energy_from, self.energy_key, self.per_atom_energies, self.positive_is_bound]
        shaped_by = [super().fingerprint, files, energies, self.on_bad]
        return hashlib.sha256(json.dumps(shaped_by).encode()).hexdigest()

    @property
    def largest(self) -> Tensor:
        """Places of the Ga70 clusters, which the paper sets apart to test the transfer to a larger size."""
        return torch.nonzero(self.sizes == LARGEST).flatten()

    def paper_split(self, seed: int = 0) -> Split:
        """Random split of the clusters of 31 to 69 atoms: 656 for validation, 656 for test, the rest for training.

        Args:
            seed: Seed of the split; that of the paper is not known.

        Raises:
            InputError: If there are too few clusters for that.
        """
        others = torch.nonzero(self.sizes != LARGEST).flatten()
        num = others.numel()
        if num <= 2 * NUM_HELD_OUT:
            raise InputError(
                f"{num} clusters of other sizes than {LARGEST} cannot give {NUM_HELD_OUT} for validation and "
                f"{NUM_HELD_OUT} for test; use random_split"
            )
        share = NUM_HELD_OUT / num
        inner = random_split(num, (1 - 2 * share, share, share), seed)
        return Split(others[inner.train], others[inner.val], others[inner.test])

    def _read(self) -> tuple[list[Data], list[str], dict[str, float]]:
        bad: list[BadFrame] = []
        with TemporaryDirectory() as scratch:
            gathered = gather(self._raw, Path(scratch))
            structures = self._structures(gathered, bad)
            labelled = self._labelled(structures, gathered, bad)
        blocks = self._blocks(self._plausible(labelled, bad))
        sizes = np.concatenate([np.zeros(0, dtype=np.int64), *(block.sizes for block in blocks)])
        if not sizes.size:
            raise InputError(f"{self._raw}: no structure can be used; the first: {bad[0]}")
        if bad:
            warnings.warn(f"{self._raw}: {len(bad)} structures left out, the first: {bad[0]}", stacklevel=2)
        if sizes.size != NUM_STRUCTURES or sizes.min() < SIZES[0] or sizes.max() > SIZES[1]:
            text = f"{sizes.size} structures of {sizes.min()} to {sizes.max()} atoms"
            warnings.warn(f"{self._raw}: {text}; GNC_31-70 has 6,851 of 31 to 70", stacklevel=2)
        self._found = blocks
        return super()._read()

    def _read_file(self, file: Path) -> list[FrameBlock]:
        return self._found if file == self.files[0] else []

    def _refuse(self, where: Structure | BadFrame, reason: str, bad: list[BadFrame]):
        frame = BadFrame(str(self._raw / where.file), where.number, reason)
        if self.on_bad == "stop":
            raise InputError(f"{frame}; fix or remove the structure, or pass on_bad='skip' to leave such ones out")
        bad.append(frame)

    def _structures(self, gathered: dict[str, Path], bad: list[BadFrame]) -> list[Structure]:
        """All structures that can be read, of gallium."""
        structures = []
        for found in (each for name, path in gathered.items() for each in read_structures(name, path)):
            if isinstance(found, BadFrame):
                self._refuse(found, found.reason, bad)
            elif set(found.atoms.symbols) != {"Ga"}:
                self._refuse(found, f"is {found.atoms.get_chemical_formula()}, but GNC has gallium only", bad)
            else:
                structures.append(found)
        if not structures and not bad:
            names = ", ".join(list(gathered)[:5]) or "empty archives"
            raise InputError(f"{self._raw}: no XYZ or POSCAR files, but {names}; {HOW_TO_GET}")
        return structures

    def _labelled(
        self, structures: list[Structure], gathered: dict[str, Path], bad: list[BadFrame]
    ) -> dict[Structure, float]:
        """The structures that have an energy, with it in eV."""
        tables = {name: path for name, path in gathered.items() if is_table(name)}
        source, energies = energies_of(structures, tables, self.energy_from, self.energy_key)
        labelled = {}
        for structure, energy in zip(structures, energies, strict=True):
            if energy is None:
                where = NO_ENERGY[source].format(structure.comment[:60])
                lacking = f"({energies.count(None)} of {len(structures)} structures lack one there)"
                self._refuse(structure, f"{where} {lacking}", bad)
            else:
                sign = -1 if self.positive_is_bound else 1
                size = len(structure.atoms) if self.per_atom_energies else 1
                labelled[structure] = sign * energy * UNITS[self.unit] * size
        return labelled

    def _plausible(self, labelled: dict[Structure, float], bad: list[BadFrame]) -> dict[Structure, float]:
        """Those with an energy that a gallium cluster can have."""
        if not labelled:
            return {}
        sizes = np.array([len(structure.atoms) for structure in labelled])
        per_atom = np.fromiter(labelled.values(), dtype=np.float64) / sizes - self._energy_of_atom
        self._check_scale(per_atom, sizes)
        median = np.median(per_atom)
        for structure, value in zip(list(labelled), per_atom, strict=True):
            if abs(value - median) > MAX_DEVIATION:
                reason = f"the energy is {value:.3f} eV per atom, but the median of all is {median:.3f}"
                self._refuse(structure, reason, bad)
                del labelled[structure]
        return labelled

    def _check_scale(self, per_atom: np.ndarray, sizes: np.ndarray):
        """Stops at energies that cannot be binding energies, and says which arguments would make them so."""
        lowest, highest = GALLIUM_PER_ATOM
        median = np.median(per_atom)
        if lowest < median < highest:
            return
        advice: list[list[str]] = []
        for unit, sign, times_size in product(UNITS, (1, -1), (False, True)):
            trial = sign * np.median(per_atom * sizes if times_size else per_atom) * UNITS[unit] / UNITS[self.unit]
            if lowest < trial < highest:
                changes = [f"unit={unit!r}"] if unit != self.unit else []
                changes += [f"positive_is_bound={not self.positive_is_bound}"] if sign < 0 else []
                changes += ["per_atom_energies=True"] if times_size else []
                advice.append(changes)
        fitting = ", ".join(sorted(advice, key=len)[0]) if advice else "unit, energy_key, energy_from or references"
        raise InputError(
            f"{self._raw}: the energies have a median of {median:.4g} eV per atom, but gallium clusters are bound by "
            f"{lowest} to {highest}; try {fitting}"
        )

    def _blocks(self, labelled: dict[Structure, float]) -> list[FrameBlock]:
        """The frames of each file with their energies."""
        frames: dict[str, dict[int, Atoms]] = {}
        for structure, energy in labelled.items():
            structure.atoms.info = {"energy": energy, "name": f"{structure.file} {structure.number}"}
            frames.setdefault(structure.file, {})[structure.number] = structure.atoms
        return [block_of_frames(self._raw / file, of_file, ["energy", "name"]) for file, of_file in frames.items()]


def _check_choice(name: str, value: str, choices: Iterable[str]):
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
