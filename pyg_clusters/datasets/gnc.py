"""The gallium clusters of the DART paper, from downloaded files."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from pyg_clusters.composition import composition_names
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.label_arguments import Processing
from pyg_clusters.datasets.splits import Split, random_split
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame, FrameBlock
from pyg_clusters.frames.checks import numbers
from pyg_clusters.frames.paths import file_format, holds_structures, natural_order
from pyg_clusters.units import ENERGY_UNITS

GALLIUM_PER_ATOM: tuple[float, float] = (-3.0, -2.0)
"""Range of the binding energy per atom, in eV, of any gallium cluster of these sizes (GNC: about -2.5)."""

MAX_DEVIATION: float = 0.4
"""Maximum deviation of a binding energy per atom from the median in eV. Larger ones are errors in the file, because all
isomers are within 0.2 eV."""

NUM_STRUCTURES: int = 6851
SIZES: tuple[int, int] = (31, 70)
LARGEST: int = 70
NUM_HELD_OUT: int = 656

HOW_TO_GET: str = (
    "download the data set GNC_31-70 from figshare (6,851 gallium clusters; linked from the supplementary information "
    "of Modee et al., Phys. Chem. Chem. Phys. 2021, https://doi.org/10.1039/d1cp02956h) and unpack it there"
)


class GNC(ClusterDataset):
    r"""GNC_31-70: 6,851 low-energy isomers of Ga31 to Ga70 with DFT binding energies (PBE, PAW, VASP), the data of
    `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al. 2021, section 2.1).

    The data cannot be distributed with this package: **download the figshare archive and unpack it into**
    ``root/raw``. Structures are (extended) XYZ, POSCAR or CONTCAR files in any subfolders. Periodic cells are removed,
    and clusters that cross cell faces are joined. Energies are read from the comment lines, or from a table
    ``energies.csv`` in ``root/raw`` with the columns ``file``, ``frame`` (for files of several frames) and ``energy``.

    The paper gives 5,265 and elsewhere 5,256 training structures, which contradicts its other numbers: 6,851 structures
    minus 285 of Ga70, and 656 each for validation and test, leave 5,254.

    A cluster has the attributes of :class:`ClusterDataset`, with its binding energy in eV as ``y [1]``. Each cluster is
    a group of its own, named in ``group_names`` by file and frame.

    Args:
        root (str or Path): Folder with the files in its subfolder ``raw``.
        target (str): Name of the energy in the comment lines or the header of the table; ``"comment"`` for a comment
            line that is a single number.
        energy_unit (str): Unit of the energies, such as ``"eV"``, ``"kcal/mol"`` or ``"Hartree"``. A wrong unit is
            detected by the energy per atom.
        references (dict, optional): Energy in eV of an isolated atom, ``{"Ga": ...}``, for files with total energies.
        on_missing (str): ``"stop"`` raises at the first structure without an energy, ``"skip"`` leaves it out.
        on_bad (str): ``"stop"`` raises at the first structure that cannot be used, ``"skip"`` leaves it out.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.

    Raises:
        InputError: If there are no files (the message gives the source of the data), a structure cannot be used or has
            no energy, or the energies cannot be binding energies of gallium in this unit.

    Example:
        >>> import tempfile
        >>> from pyg_clusters.datasets import GalliumClusters
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "raw").mkdir()
        >>> cluster = GalliumClusters()[0]
        >>> lines = [f"Ga {x} {y} {z}" for x, y, z in cluster.pos.tolist()]
        >>> text = "\n".join([str(len(lines)), f"energy={cluster.y.item()}", *lines, ""])
        >>> _ = (folder / "raw" / "isomer.xyz").write_text(text)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # that this is not all of GNC
        ...     GNC(folder)[0].y
        tensor([-70.6204])
    """

    def __init__(
        self,
        root: str | Path,
        target: str = "energy",
        *,
        energy_unit: str = "eV",
        references: Mapping[str, float] | None = None,
        on_missing: Literal["stop", "skip"] = "stop",
        on_bad: Literal["stop", "skip"] = "stop",
        **kwargs: Unpack[Processing],
    ):
        self._raw = Path(root).expanduser().absolute() / "raw"
        self._energy_of_atom = (references or {}).get("Ga", 0.0)
        table = self._raw / "energies.csv"
        super().__init__(
            root,
            _structures_below(self._raw),
            target,
            labels=table if table.exists() else None,
            energy_unit=energy_unit,
            references=references,
            on_missing=on_missing,
            on_bad=on_bad,
            **kwargs,
        )
        smallest, largest = int(self.sizes.min()), int(self.sizes.max())
        if len(self) != NUM_STRUCTURES or smallest < SIZES[0] or largest > SIZES[1]:
            text = f"{len(self)} structures of {smallest} to {largest} atoms"
            warnings.warn(f"{self._raw}: {text}; GNC_31-70 has 6,851 of 31 to 70", stacklevel=2)

    @property
    def largest(self) -> Tensor:
        """Indices of the Ga70 clusters, on which the paper tests the transfer to a larger size."""
        return torch.nonzero(self.sizes == LARGEST).flatten()

    def paper_split(self, seed: int = 0) -> Split:
        """Split the clusters of 31 to 69 atoms at random: 656 for validation, 656 for test, the others for training.

        The seed used in the paper is unknown.

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
        """Yield blocks of gallium clusters with plausible binding energies."""
        blocks = []
        for block in super()._blocks():
            other = np.unique(block.frame_of_atom[block.z != atomic_numbers["Ga"]]).tolist()
            names = composition_names(block.z, block.ptr)
            blocks.append(self._without(block, {n: f"is {names[n]}, but GNC has gallium only" for n in other}))
        if not any(map(len, blocks)):
            return
        per_atom = [numbers(block, self.target) / block.sizes - self._energy_of_atom for block in blocks]
        median = float(np.median(np.concatenate(per_atom)))
        lowest, highest = GALLIUM_PER_ATOM
        if not lowest < median < highest:
            units = (name for name, unit in ENERGY_UNITS.items() if lowest < median * unit / self.energy_unit < highest)
            fitting = next((f"energy_unit={name!r}" for name in units), "energy_unit, target or references")
            raise InputError(
                f"{self._raw}: the energies have a median of {median:.4g} eV per atom, but gallium clusters are bound "
                f"by {lowest} to {highest}; try {fitting}"
            )
        for block, energies in zip(blocks, per_atom, strict=True):
            odd = np.flatnonzero(np.abs(energies - median) > MAX_DEVIATION)
            text = f"the energy is {{:.3f}} eV per atom, but the median of all is {median:.3f}"
            usable = self._without(block, {n: text.format(energies[n]) for n in odd.tolist()})
            if len(usable):
                yield usable

    def _without(self, block: FrameBlock, faults: dict[int, str]) -> FrameBlock:
        """Select the frames without a fault; the others raise an error or are recorded as skipped."""
        self._reader.note([BadFrame(block.file, int(block.number[n]), text) for n, text in faults.items()])
        return block.select(~np.isin(np.arange(len(block)), list(faults))) if faults else block

    def _groups_of(self, block: FrameBlock) -> np.ndarray:
        name = Path(block.file).relative_to(self._raw).as_posix()
        return np.array([f"{name} {number}" for number in block.number], dtype=object)


def _structures_below(folder: Path) -> list[Path]:
    """XYZ and POSCAR files in a folder and its subfolders, except hidden files of operating systems."""
    names = sorted((file.relative_to(folder) for file in folder.rglob("*") if file.is_file()), key=natural_order)
    files = [folder / name for name in names if not any(part.startswith(("__MACOSX", ".")) for part in name.parts)]
    structures = [file for file in files if holds_structures(file) and file_format(file) in ("xyz", "vasp")]
    if not structures:
        found = f"no XYZ or POSCAR files, but {', '.join(file.name for file in files[:5])}" if files else "no files"
        raise InputError(f"{folder}: {found}; {HOW_TO_GET}")
    return structures
