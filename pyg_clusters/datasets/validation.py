"""Validation of the arguments of data sets that concern labels."""

import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.storage import E_KEYS, N_KEYS

from pyg_clusters.errors import InputError, check_choice
from pyg_clusters.options import Fragments
from pyg_clusters.units import ENERGY_UNITS, unit_of

RESERVED: frozenset[str] = frozenset({"z", "y", "idx", "cluster_size", "group", "force", "adj", "adj_t"})
"""Names with a meaning in the data sets or, outside its classes, in PyG."""

MOST_BINDING: float = 100.0
"""Largest energy in eV per atom, relative to separate atoms, that is possible for a cluster."""


def names_in_data(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Names of further values in the data, by their names in the files."""
    if isinstance(names, str):
        names = [names]
    return dict(names) if isinstance(names, Mapping) else {key: key for key in names}


def check_kept_names(keep: Mapping[str, str], keep_atoms: Mapping[str, str]):
    """Check the names of further values in the data."""
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
    """Whether an attribute of this name is special in PyG, Python or a data set.

    PyG itself is queried: attributes of ``Data`` and ``Batch``, names from which it infers the number of nodes or
    edges, names that it increments or concatenates along another axis.

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


def check_energies_above_references(energy: Tensor, sizes: Tensor, references: Mapping[str, float]):
    """Check that energies and the subtracted references have the same zero and unit.

    Args:
        energy: Energies less the references ``[num_graphs]`` in eV.
        sizes: Numbers of atoms ``[num_graphs]``.
        references: The references in eV by element symbol.
    """
    per_atom = energy / sizes
    largest = int(per_atom.abs().argmax())
    if abs(float(per_atom[largest])) > MOST_BINDING:
        stated = ", ".join(f"{symbol} {value:.6g}" for symbol, value in references.items())
        raise InputError(
            f"an energy is {float(per_atom[largest]):.6g} eV per atom away from the references ({stated} eV): labels "
            "and references, or labels of different frames, have different zeros or units; check energy_unit and "
            "references, or fit the references (references='fit')"
        )


class LabelArguments:
    """Arguments on labels, common to data sets in memory and on disk."""

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

    def find_references(
        self, numbers: Iterable[int], isolated: Mapping[str, float], fit: Callable[[], Mapping[int, float]]
    ) -> dict[str, float]:
        """Reference energies in eV by element symbol, as the argument ``references`` specifies.

        Args:
            numbers: Atomic numbers of the elements that occur.
            isolated: Energies of isolated atoms in eV by element symbol.
            fit: Function that returns the energies that fit the labels best, by atomic number.
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
            raise InputError(f"no reference energy for {missing}; given are {', '.join(known)}")
        if infinite := [symbol for symbol, value in known.items() if not math.isfinite(value)]:
            raise InputError(f"the reference energy of {infinite[0]} is {known[infinite[0]]}; give a finite number")
        return {symbol: float(value) for symbol, value in known.items()}
