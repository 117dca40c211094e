"""Arguments of data sets: those of the labels, and those of the processing by PyG."""

import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypedDict

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.storage import E_KEYS, N_KEYS

from pyg_clusters.composition import composition_names
from pyg_clusters.datasets.label_reading import LabelReader, Labels
from pyg_clusters.datasets.label_table import LabelTable
from pyg_clusters.errors import InputError, check_choice
from pyg_clusters.metrics import mixed_zeros
from pyg_clusters.nn.output_scale import farthest_from_fit, shift_of_references
from pyg_clusters.options import Fragments
from pyg_clusters.units import ENERGY_UNITS, unit_of

RESERVED: frozenset[str] = frozenset({"z", "y", "idx", "cluster_size", "group", "force", "adj", "adj_t"})
"""Names that are reserved by the data sets or by PyG (in addition to attributes of its classes)."""

MOST_BINDING: float = 100.0
"""Maximum magnitude in eV per atom of the energy of a cluster relative to separated atoms."""


class Processing(TypedDict, total=False):
    """Arguments of :class:`ClusterDataset` for data sets with fixed files."""

    transform: Callable | None
    pre_transform: Callable | None
    pre_filter: Callable | None
    force_reload: bool


class LabelArguments:
    """Label arguments of data sets in memory and on disk."""

    def take_label_arguments(
        self,
        target: str,
        per_atom: bool,
        energy_unit: str,
        references: Mapping[str, float] | str | None,
        group: str | None,
        keep: Sequence[str] | Mapping[str, str],
        keep_atoms: Sequence[str] | Mapping[str, str],
        forces: bool | str,
        fragments: Fragments,
        on_missing: Literal["stop", "skip"],
        on_bad: Literal["stop", "skip"],
    ):
        """Check the arguments and store them as attributes."""
        self.target = target
        self.per_atom = per_atom
        self.energy_unit = unit_of(energy_unit, ENERGY_UNITS, "energy_unit")
        self._references = dict(references) if isinstance(references, Mapping) else references
        self.group_key = group
        self.keep = names_in_data(keep)
        self.keep_atoms = names_in_data(keep_atoms)
        self.forces = bool(forces)
        self.forces_key = forces if isinstance(forces, str) else "forces"
        self.fragments = fragments
        self.on_missing = on_missing
        self.on_bad = on_bad
        if per_atom and self.energy_unit != 1:
            raise InputError("energy_unit belongs to a target per cluster; this one is per atom: leave it out")
        check_choice("on_missing", on_missing)
        check_choice("on_bad", on_bad)
        check_kept_names(self.keep, self.keep_atoms)
        if per_atom and references is not None:
            raise InputError("reference energies belong to a target per cluster; this one is per atom: leave them out")
        if isinstance(references, str) and references not in ("fit", "isolated_atoms"):
            kinds = "'fit', 'isolated_atoms' or energies by element symbol"
            raise InputError(f"references must be {kinds}, got {references!r}")
        unknown = set(references) - set(atomic_numbers) if isinstance(references, Mapping) else set()
        if unknown:
            raise InputError(f"references: {min(unknown)!r} is not an element symbol")

    def labels_of_files(self, target: str, forces: bool, length: float = 1.0) -> Labels:
        """Labels of files whose target has this name, with or without forces, and with positions in this unit in Å."""
        key = self.forces_key if forces else None
        arrays = (*self.keep_atoms, *((key,) if key else ()))
        arguments = (target, self.per_atom, self.group_key, tuple(self.keep), arrays, self.fragments)
        return Labels(*arguments, self.energy_unit, length, key)

    def label_reader(self, table: LabelTable | None = None) -> LabelReader:
        """Reader of the labels, which are in a table or in the files."""
        return LabelReader(self.on_missing, self.on_bad, self._references == "isolated_atoms", table)

    def find_references(
        self, numbers: Iterable[int], isolated: Mapping[str, float], fit: Callable[[], Mapping[int, float]]
    ) -> dict[str, float]:
        """Return the reference energies in eV by element symbol, according to the argument ``references``.

        Args:
            numbers: Atomic numbers of the elements in the data set.
            isolated: Energies of isolated atoms in eV by element symbol.
            fit: Function that returns least-squares energies in eV by atomic number.
        """
        references = self._references
        if references is None:
            return {}
        if references == "fit":
            return {chemical_symbols[number]: value for number, value in fit().items()}
        known = references if isinstance(references, dict) else isolated
        missing = ", ".join(sorted({chemical_symbols[number] for number in numbers} - set(known)))
        if missing and known is isolated:
            raise InputError(
                f"no isolated atom of {missing} among the frames (found: {', '.join(known) or 'none'}); add a frame of "
                "one atom, or give references as energies by element symbol or 'fit'"
            )
        if missing:
            raise InputError(f"no reference energy for {missing}, only for {', '.join(known)}")
        if infinite := [symbol for symbol, value in known.items() if not math.isfinite(value)]:
            raise InputError(f"the reference energy of {infinite[0]} is {known[infinite[0]]}; give a finite number")
        return {symbol: float(value) for symbol, value in known.items()}

    @staticmethod
    def relative_to(references: Mapping[str, float], target: Tensor, z: Tensor, ptr: Tensor) -> Tensor:
        """Targets ``[num_graphs]`` in eV minus reference energies by element symbol, if there are any."""
        numbered = {atomic_numbers[symbol]: energy for symbol, energy in references.items()}
        return target - shift_of_references(z, ptr, numbered) if numbered else target

    @staticmethod
    def check_energies(energy: Tensor, sizes: Tensor, references: Mapping[str, float]):
        """Check that energies minus references ``[num_graphs]`` in eV are plausible: same zero and same unit."""
        per_atom = energy / sizes
        farthest = float(per_atom[per_atom.abs().argmax()])
        if abs(farthest) > MOST_BINDING:
            stated = ", ".join(f"{symbol} {value:.6g}" for symbol, value in references.items())
            raise InputError(
                f"an energy is {farthest:.6g} eV per atom away from the references ({stated} eV): labels and "
                "references, or labels of different frames, have different zeros or units; check energy_unit and "
                "references, or fit the references (references='fit')"
            )

    @staticmethod
    def zero_problem(z: Tensor, ptr: Tensor, energy: Tensor) -> str | None:
        """Warning about energies ``[num_graphs]`` in eV of clusters of the same elements with different zeros."""
        if (apart := farthest_from_fit(z, ptr, energy)) > MOST_BINDING:
            return (
                f"targets differ by up to {apart:.6g} eV per atom from others with the same elements: energies of "
                "different frames have different zeros or units"
            )
        return mixed_zeros(energy, ptr.diff(), composition_names(z.numpy(), ptr.numpy()))


def names_in_data(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Map names in the files to names in the data."""
    if isinstance(names, str):
        names = [names]
    return dict(names) if isinstance(names, Mapping) else {key: key for key in names}


def check_kept_names(keep: Mapping[str, str], keep_atoms: Mapping[str, str]):
    """Check that the names of additional values are valid and distinct."""
    names = [*keep.values(), *keep_atoms.values()]
    for argument, renamed in (("keep", keep), ("keep_atoms", keep_atoms)):
        for key, name in renamed.items():
            if has_meaning(name):
                free = re.sub(r"\W", "", name)
                for meaning, word in (("index", "id"), ("batch", "set"), ("node", "atom")):
                    free = free.replace(meaning, word)
                raise InputError(
                    f"{name!r} cannot be kept: the name is reserved in a batch, or is not an identifier; rename it, "
                    f"{argument}={{{key!r}: 'my_{free}'}}"
                )
    if len(set(names)) < len(names):
        raise InputError(f"values to keep must have different names, got {', '.join(names)}")


def has_meaning(name: str) -> bool:
    """Whether an attribute of this name is reserved in PyG, Python or the data sets.

    PyG itself is queried: attributes of ``Data`` and ``Batch``, names from which it infers the number of nodes or
    edges, and names that it increments or concatenates along another axis.

    Example:
        >>> [name for name in ("temperature", "face", "num_nodes", "ptr", "keys", "my_index", "node_charge")
        ...  if has_meaning(name)]
        ['face', 'num_nodes', 'ptr', 'keys', 'my_index', 'node_charge']
    """
    probe = Data(pos=torch.zeros(2, 3))
    batch = Batch.from_data_list([probe, probe])
    value = torch.ones(2, dtype=torch.long)
    return (
        not name.isidentifier()
        or keyword.iskeyword(name)
        or name.startswith(("_", "edge_"))
        or name in RESERVED | N_KEYS | E_KEYS
        or "node" in name
        or any(hasattr(type(data), name) or name in dir(data) or name in data for data in (probe, batch))
        or probe.__cat_dim__(name, value) != 0
        or probe.__inc__(name, value) != 0
    )
