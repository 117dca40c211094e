"""The gallium clusters of the DART paper, from files that the user has downloaded."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Unpack

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from pyg_clusters.datasets.card import Processing
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.gnc_files import EnergySource, Structure, files_below, gather, read_structures, set_energies
from pyg_clusters.datasets.splits import Split, random_split
from pyg_clusters.datasets.validation import check_choice
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.frames.ase_reader import block_of_frames
from pyg_clusters.frames.block import ReadOptions
from pyg_clusters.units import ENERGY_UNITS, unit_of

GALLIUM_PER_ATOM: tuple[float, float] = (-3.0, -2.0)
"""Range of the binding energy per atom, in eV, of any gallium cluster of these sizes (GNC: about -2.5)."""

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
    "name": "no energy in the file name",
}

HOW_TO_GET: str = (
    "download the data set GNC_31-70 from figshare (6,851 gallium clusters; linked from the supplementary information "
    "of Modee et al., Phys. Chem. Chem. Phys. 2021, https://doi.org/10.1039/d1cp02956h) and put it there, as "
    "downloaded or unpacked"
)


class GNC(ClusterDataset):
    r"""GNC_31-70: 6,851 low-energy isomers of Ga31 to Ga70 with binding energies by DFT (PBE, PAW, VASP), the data of
    `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al. 2021, section 2.1).

    The data cannot be distributed with this package: **download the figshare archive and put it, packed or unpacked,
    into** ``root/raw``. Folders and archives (``.zip``, ``.tar``, ``.tar.gz``) may be nested. Supported are:

    - structures as (extended) XYZ of one or many frames, POSCAR or CONTCAR; a periodic cell is removed, and a cluster
      that crosses its faces is joined;
    - energies in the comment line (``energy=-73.2``, ``E = -73.2 eV``, a lone number), in a table (``.csv``, ``.tsv``,
      ``.txt``, ``.dat``) with the file name and its energy in a row, or in the file name (``Ga31_17_-73.2.xyz``). The
      source that most structures have is used for all.

    The numbers of the paper are inconsistent: 6,851 structures less 285 of Ga70 are 6,566, of which 656 for validation
    and 656 for test leave 5,254 for training, where it states 5,265 and elsewhere 5,256 (and 655 for 656).
    :meth:`paper_split` takes 656 and 656, and the rest for training.

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å, ``y [1]`` (binding energy in eV), ``idx [1]``,
    ``cluster_size [1]`` and ``group [1]``, a group of its own: ``group_names`` has file and frame of each.

    Args:
        root (str or Path): Folder with the files in its subfolder ``raw``.
        unit (str): Unit of the energies in the files, such as ``"eV"``, ``"kcal/mol"`` or ``"Hartree"``. A wrong unit
            is detected by the energy per atom.
        energy_from (str): Source of the energies: ``"table"``, ``"comment"``, ``"name"``, or ``"auto"``.
        energy_key (str, optional): Name of the energy in the comment line or the header of the table, if it is not a
            usual one.
        per_atom_energies (bool): Whether the energies are per atom.
        positive_is_bound (bool): Whether the energies are positive for bound clusters.
        references (dict, optional): Energy in eV of an isolated atom, ``{"Ga": ...}``, for files with total energies.
        on_bad (str): ``"stop"`` raises at the first structure that cannot be used, ``"skip"`` leaves such structures
            out with a warning.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.

    Raises:
        InputError: If there are no files (the message gives the source of the data), an archive is damaged or not safe
            to unpack, a structure cannot be used or has no energy, or the energies cannot be binding energies of
            gallium in this unit.

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
        ...     warnings.simplefilter("ignore")  # that this is not all of GNC
        ...     GNC(folder)[0].y
        tensor([-70.6204])
    """

    def __init__(
        self,
        root: str | Path,
        *,
        unit: str = "eV",
        energy_from: EnergySource | Literal["auto"] = "auto",
        energy_key: str | None = None,
        per_atom_energies: bool = False,
        positive_is_bound: bool = False,
        references: Mapping[str, float] | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        **kwargs: Unpack[Processing],
    ):
        check_choice("energy_from", energy_from, ("auto", "table", "comment", "name"))
        self.unit = unit_of(unit, ENERGY_UNITS, "unit")
        self.energy_from = energy_from
        self.energy_key = energy_key
        self.per_atom_energies = per_atom_energies
        self.positive_is_bound = positive_is_bound
        self._energy_of_atom = (references or {}).get("Ga", 0.0)
        self._raw = Path(root).expanduser().absolute() / "raw"
        files = files_below(self._raw)
        if not files:
            raise InputError(f"{self._raw}: no files; {HOW_TO_GET}")
        super().__init__(root, files, group="name", references=references, on_bad=on_bad, **kwargs)

    @property
    def fingerprint(self) -> str:
        files = [file.relative_to(self._raw).as_posix() for file in self.files]
        energies = [self.unit, self.energy_from, self.energy_key, self.per_atom_energies, self.positive_is_bound]
        return hashlib.sha256(json.dumps([super().fingerprint, files, energies]).encode()).hexdigest()

    @property
    def largest(self) -> Tensor:
        """Indices of the Ga70 clusters, with which the paper tests the transfer to a larger size."""
        return torch.nonzero(self.sizes == LARGEST).flatten()

    def paper_split(self, seed: int = 0) -> Split:
        """Random split of the clusters of 31 to 69 atoms: 656 for validation, 656 for test, the rest for training.

        Args:
            seed: Seed of the split; that of the paper is not known.

        Raises:
            InputError: If there are too few clusters.
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

    def _blocks(self) -> Iterator[FrameBlock]:
        """Structures with their energies, a block for each file."""
        with TemporaryDirectory() as scratch:
            files = gather(self._raw, Path(scratch))
            structures = [each for name, path in files.items() for each in read_structures(name, path)]
            if not structures:
                names = ", ".join(list(files)[:5]) or "empty archives"
                raise InputError(f"{self._raw}: no XYZ or POSCAR files, but {names}; {HOW_TO_GET}")
            structures = self._usable(structures, _fault)
            source = set_energies(structures, files, self.energy_from, self.energy_key)
        without = sum(math.isnan(each.energy) for each in structures)
        lacking = f"{NO_ENERGY[source]} ({without} of {len(structures)} structures lack one there)"
        structures = self._usable(
            structures, lambda each: lacking.format(each.comment[:60]) if math.isnan(each.energy) else ""
        )
        for each in structures:
            each.energy *= self.unit * (-1 if self.positive_is_bound else 1)
            each.energy *= len(each.atoms) if self.per_atom_energies else 1
        structures = self._plausible(structures)
        if structures:
            self._check_complete([len(each.atoms) for each in structures])
        frames: dict[str, dict[int, Atoms]] = {}
        for each in structures:
            each.atoms.info = {"energy": each.energy, "name": f"{each.file} {each.number}"}
            frames.setdefault(each.file, {})[each.number] = each.atoms
        for file, of_file in frames.items():
            yield block_of_frames(self._raw / file, of_file, ReadOptions(properties=("energy", "name")))

    def _usable(self, structures: list[Structure], fault: Callable[[Structure], str]) -> list[Structure]:
        """Structures without a fault; the others raise an error or are noted as skipped."""
        faults = [fault(each) for each in structures]
        bad = [(each, text) for each, text in zip(structures, faults, strict=True) if text]
        self._reader.note([BadFrame(str(self._raw / each.file), each.number, text) for each, text in bad])
        return [each for each, text in zip(structures, faults, strict=True) if not text]

    def _plausible(self, structures: list[Structure]) -> list[Structure]:
        """Structures whose energy is possible for a gallium cluster.

        Raises:
            InputError: If the scale is wrong; the message names the arguments that correct it.
        """
        if not structures:
            return []
        sizes = np.array([len(each.atoms) for each in structures])
        per_atom = np.array([each.energy for each in structures]) / sizes - self._energy_of_atom
        binding = dict(zip(structures, per_atom.tolist(), strict=True))
        median = float(np.median(per_atom))
        lowest, highest = GALLIUM_PER_ATOM
        if lowest < median < highest:
            reason = "the energy is {:.3f} eV per atom, but the median of all is {:.3f}"
            return self._usable(
                structures,
                lambda each: (
                    reason.format(binding[each], median) if abs(binding[each] - median) > MAX_DEVIATION else ""
                ),
            )
        advice: list[list[str]] = []
        for (name, unit), sign, times_size in product(ENERGY_UNITS.items(), (1, -1), (False, True)):
            trial = sign * float(np.median(per_atom * sizes if times_size else per_atom)) * unit / self.unit
            if lowest < trial < highest:
                changes = [f"unit={name!r}"] if unit != self.unit else []
                changes += [f"positive_is_bound={not self.positive_is_bound}"] if sign < 0 else []
                changes += ["per_atom_energies=True"] if times_size else []
                advice.append(changes)
        fitting = ", ".join(sorted(advice, key=len)[0]) if advice else "unit, energy_key, energy_from or references"
        raise InputError(
            f"{self._raw}: the energies have a median of {median:.4g} eV per atom, but gallium clusters are bound by "
            f"{lowest} to {highest}; try {fitting}"
        )

    def _check_complete(self, sizes: list[int]):
        """Warn if this is not the whole data set."""
        if len(sizes) != NUM_STRUCTURES or min(sizes) < SIZES[0] or max(sizes) > SIZES[1]:
            text = f"{len(sizes)} structures of {min(sizes)} to {max(sizes)} atoms"
            warnings.warn(f"{self._raw}: {text}; GNC_31-70 has 6,851 of 31 to 70", stacklevel=2)


def _fault(structure: Structure) -> str:
    """Reason why a structure is not a gallium cluster."""
    if structure.fault or set(structure.atoms.symbols) == {"Ga"}:
        return structure.fault
    return f"is {structure.atoms.get_chemical_formula()}, but GNC has gallium only"
