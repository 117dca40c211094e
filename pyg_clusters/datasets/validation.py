"""Arguments on the labels of data sets, checked: what to read, to keep and to subtract."""

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

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import Fragments
from pyg_clusters.units import ENERGY_UNITS, unit_of

RESERVED: frozenset[str] = frozenset({"z", "y", "idx", "cluster_size", "group", "force", "adj", "adj_t"})
"""Names that the data sets, and PyG outside its classes, give a meaning."""

MOST_BINDING: float = 100.0
"""Largest energy in eV per atom that a cluster can have beside its separate atoms."""


def names_in_data(names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The name in the data of each further value by its name in the files."""
    if isinstance(names, str):
        names = [names]
    return dict(names) if isinstance(names, Mapping) else {key: key for key in names}


def check_kept_names(keep: Mapping[str, str], keep_atoms: Mapping[str, str]):
    """Checks the names that further values get in the data.

    Raises:
        InputError: If one cannot be used, or is there twice.
    """
    names = [*keep.values(), *keep_atoms.values()]
    for argument, renamed in (("keep", keep), ("keep_atoms", keep_atoms)):
        for key, name in renamed.items():
            if has_meaning(name):
                free = re.sub(r"\W", "", name)
                for meaning, word in (("index", "id"), ("batch", "set"), ("node", "atom")):
                    free = free.replace(meaning, word)
                raise InputError(
                    f"{name!r} cannot be kept: the name has a meaning of its own in a batch, or is none; rename it, "
                    f"{argument}={{{key!r}: 'my_{free}'}}"
                )
    if len(set(names)) < len(names):
        raise InputError(f"values to keep must have different names, got {', '.join(names)}")


def has_meaning(name: str) -> bool:
    """Whether PyG, Python or a data set gives a meaning to an attribute of the data of this name.

    It is asked of PyG itself: names of attributes of ``Data`` and ``Batch``, names from which it infers the number of
    nodes or edges, names that it increments or joins along another axis.

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


def check_choice(name: str, value: str, choices: Sequence[str] = ("stop", "skip")):
    """Checks an argument that has a few values.

    Raises:
        InputError: If it is none of them.
    """
    if value not in choices:
        raise InputError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def check_references(asked: Mapping[str, float] | str | None, per_atom: bool):
    """Checks the reference energies that are asked for: a way to find them, or values by element symbol.

    Raises:
        InputError: If they are something else, or the target is one per atom.
    """
    if per_atom and asked is not None:
        raise InputError("reference energies belong to a target per cluster; this one is per atom")
    if isinstance(asked, str) and asked not in ("fit", "isolated_atoms"):
        raise InputError(f"references must be 'fit', 'isolated_atoms' or energies by element symbol, got {asked!r}")
    if isinstance(asked, Mapping) and (unknown := [symbol for symbol in asked if symbol not in atomic_numbers]):
        raise InputError(f"references: {unknown[0]!r} is no element symbol")


def check_energies_above_references(energy: Tensor, sizes: Tensor, references: Mapping[str, float]):
    """Checks that energies count from the references that were subtracted from them.

    Args:
        energy: What is left of them ``[num_graphs]`` in eV.
        sizes: Numbers of atoms ``[num_graphs]``.
        references: What was subtracted, in eV by element symbol.

    Raises:
        InputError: If more is left of one than any bond can hold.
    """
    per_atom = energy / sizes
    largest = int(per_atom.abs().argmax())
    if abs(float(per_atom[largest])) > MOST_BINDING:
        given = ", ".join(f"{symbol} {value:.6g}" for symbol, value in references.items())
        raise InputError(
            f"an energy is {float(per_atom[largest]):.6g} eV per atom away from the references ({given} eV): they and "
            "the labels, or the labels among each other, have different zeros or units; check energy_unit and "
            "references, or let them be fitted (references='fit')"
        )


def given_references(asked: Mapping[str, float], numbers: Iterable[int]) -> dict[str, float]:
    """Reference energies by element symbol, if there is one for each of the atomic numbers.

    Raises:
        InputError: If one is missing.
    """
    missing = {chemical_symbols[number] for number in numbers} - set(asked)
    if missing:
        raise InputError(f"no reference energy for {', '.join(sorted(missing))}; given are {', '.join(asked)}")
    endless = [symbol for symbol, value in asked.items() if not math.isfinite(value)]
    if endless:
        raise InputError(f"the reference energy of {endless[0]} is {asked[endless[0]]}; a finite number is needed")
    return {symbol: float(value) for symbol, value in asked.items()}


def isolated_references(found: Mapping[str, float], numbers: Iterable[int]) -> dict[str, float]:
    """Energies of isolated atoms in eV by element symbol, if there is one for each of the atomic numbers.

    Raises:
        InputError: If one is missing.
    """
    missing = {chemical_symbols[number] for number in numbers} - set(found)
    if missing:
        raise InputError(
            f"no isolated atom of {', '.join(sorted(missing))} among the frames (found: {', '.join(found) or 'none'}); "
            "add a frame of one atom, or give references as energies by element symbol or 'fit'"
        )
    return dict(found)


class LabelArguments:
    """Arguments on labels that data sets in memory and on disk share."""

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
        """Check the arguments and keep them as attributes.

        Raises:
            InputError: If one cannot be used.
        """
        self.target = target
        self.per_atom = per_atom
        self.energy_unit = unit_of(energy_unit, ENERGY_UNITS, "energy_unit")
        self._references_asked = dict(references) if isinstance(references, Mapping) else references
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
        check_references(self._references_asked, per_atom)

    def find_references(
        self, numbers: Iterable[int], isolated: Mapping[str, float], fit: Callable[[], Mapping[int, float]]
    ) -> dict[str, float]:
        """Reference energies in eV by element symbol, as they are asked for.

        Args:
            numbers: Atomic numbers of the elements that occur.
            isolated: Energies of isolated atoms in eV by element symbol.
            fit: Returns energies that fit the labels best, by atomic number.

        Raises:
            InputError: If one is missing.
        """
        asked = self._references_asked
        if isinstance(asked, Mapping):
            return given_references(asked, numbers)
        if asked == "isolated_atoms":
            return isolated_references(isolated, numbers)
        return {chemical_symbols[number]: value for number, value in fit().items()} if asked == "fit" else {}
