"""Memory needed by a shielding calculation, and memory available."""

import os
from pathlib import Path

from ase import Atoms

from pyg_clusters.labels.dft.level import ShieldingLevel, num_fitting_functions, num_functions

GB = 1e9
BUFFERS = 1500
"""Bytes of buffers for each element of a matrix."""

FREE = 0.9
"""Share of the free memory that the commands take by default."""

BASE = 0.5 * GB
"""Of the interpreter and its libraries."""


def needed_memory(atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes without which a cluster cannot be done: fitted integrals, and their transforms for the response."""
    functions, fitting = _sizes(atoms, level)
    electrons = float(atoms.numbers.sum())
    occupied, virtual = electrons / 2, functions - electrons / 2
    half = 4 * fitting * occupied * functions
    of_atom = 4 * 4 * functions**2 * fitting / len(atoms)
    response = 4 * fitting * (occupied**2 + occupied * virtual + virtual**2 / 2)
    packed = _packed(functions, fitting)
    return _always(functions, fitting) + max(packed + half + of_atom, response)


def spare_memory(memory: float, atoms: Atoms, level: ShieldingLevel) -> float:
    """Bytes left during the self-consistent field, to save time."""
    sizes = _sizes(atoms, level)
    return max(memory - _always(*sizes) - _packed(*sizes), 0.0)


def free_memory() -> float:
    """Bytes that the machine can give: what it calls available, or else half of all."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _always(functions: int, fitting: int) -> float:
    """Bytes of the interpreter, the metric of the fitting basis and buffers."""
    return BASE + 3 * 8 * fitting**2 + BUFFERS * functions**2


def _packed(functions: int, fitting: int) -> float:
    """Bytes of the fitted integrals."""
    return 4 * fitting * functions * (functions + 1) / 2


def _sizes(atoms: Atoms, level: ShieldingLevel) -> tuple[int, int]:
    """Number of basis and of fitting functions."""
    symbols = atoms.get_chemical_symbols()
    functions = sum(num_functions(symbol, level.basis) for symbol in symbols)
    fitting = level.fitting or "def2-universal-jkfit"
    return functions, sum(num_fitting_functions(symbol, level.basis, fitting) for symbol in symbols)
