"""How much memory a calculation of shieldings needs, and how much there is."""

import os
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from pyg_clusters.labels.dft.level import ShieldingLevel, num_fitting_functions, num_functions

GB = 1e9
POINTS_PER_ATOM = 12_000
"""Bound on the points of the finest grid in use by default (level 1), for an element of the third row."""

FREE = 0.9
"""Share of the free memory that the commands take by default."""

BASE = 0.5 * GB
"""Of the interpreter and its libraries."""


@dataclass(frozen=True)
class Room:
    """What may be held in memory to save time."""

    unpack: bool = False
    """The fitted integrals with both triangles."""
    keep_grid: bool = False
    """The values of the basis functions on the grid."""


def needed_memory(atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes without which a cluster cannot be done: fitted integrals, and their transforms for the response."""
    functions, fitting = _sizes(atoms, level)
    electrons = float(atoms.numbers.sum())
    occupied, virtual = electrons / 2, functions - electrons / 2
    packed = 8 * fitting * functions * (functions + 1) / 2
    metric, blocks = 3 * 8 * fitting**2, 3 * 8 * 240 * functions**2
    half = 8 * fitting * occupied * functions
    of_atom = 4 * 8 * functions**2 * fitting / len(atoms)
    response = 4 * fitting * (occupied**2 + occupied * virtual + virtual**2)
    return BASE + metric + blocks + max(packed + half + of_atom, response)


def room_in(memory: float, atoms: Atoms, level: ShieldingLevel) -> Room:
    """What fits into so many bytes."""
    functions, fitting = _sizes(atoms, level)
    unpacked = 8.0 * fitting * functions**2
    values = 4 * 8.0 * POINTS_PER_ATOM * len(atoms) * functions * (1 + level.grid)
    left = memory - BASE - 2 * unpacked
    keep_grid = left > values
    return Room(unpack=left - keep_grid * values > unpacked, keep_grid=keep_grid)


def free_memory() -> float:
    """Bytes that the machine can give: what it calls available, or else half of all."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sizes(atoms: Atoms, level: ShieldingLevel) -> tuple[int, int]:
    """Number of basis and of fitting functions."""
    symbols = atoms.get_chemical_symbols()
    functions = sum(num_functions(symbol, level.basis) for symbol in symbols)
    fitting = level.fitting or "def2-universal-jkfit"
    return functions, sum(num_fitting_functions(symbol, level.basis, fitting) for symbol in symbols)
