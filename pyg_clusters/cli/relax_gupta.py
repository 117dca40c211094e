"""Relaxing frames with the Gupta potential, many at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms

from pyg_clusters.frames import AtomsFrame, BadFrame
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.structures import GUPTA_PARAMETERS, Gupta, relax

PAIRS_AT_ONCE = 1_000_000

OF_POSITIONS = ("energy", "fmax")


def gupta_problem(atoms: Atoms) -> str | None:
    """Why a frame has no Gupta energy, if so."""
    symbols = atoms.get_chemical_symbols()
    for number, symbol in enumerate(symbols):
        if symbol not in GUPTA_PARAMETERS:
            return f"atom {number} is {symbol}, but the Gupta potential knows only {', '.join(GUPTA_PARAMETERS)}"
        if symbol != symbols[0]:
            return f"atom {number} is {symbol}, atom 0 {symbols[0]}, but the Gupta potential is for one element alone"
    return None


def lasting_info(atoms: Atoms) -> dict:
    """What is said of a frame, but for energies and forces, which belong to its positions: names that end so."""
    return {name: value for name, value in atoms.info.items() if not name.endswith(OF_POSITIONS)}


def chunks(frames: Iterable[AtomsFrame | BadFrame], bad: list[BadFrame]) -> Iterator[list[Atoms]]:
    """Gathers frames to be relaxed at once, with at most about a million pairs of atoms; collects bad ones."""
    chunk: list[Atoms] = []
    largest = 0
    for frame in frames:
        if isinstance(frame, BadFrame):
            bad.append(frame)
            continue
        largest = max(largest, len(frame.atoms))
        if chunk and (len(chunk) + 1) * largest**2 > PAIRS_AT_ONCE:
            yield chunk
            chunk, largest = [], len(frame.atoms)
        chunk.append(frame.atoms)
    if chunk:
        yield chunk


def relax_chunk(frames: Sequence[Atoms], fmax: float, steps: int, progress: Callable[[int], None]) -> list[Atoms]:
    """Relaxed copies of frames, in their order."""
    of_element: dict[str, list[int]] = defaultdict(list)
    for place, atoms in enumerate(frames):
        of_element[atoms.get_chemical_symbols()[0]].append(place)
    result: dict[int, Atoms] = {}
    for element, places in of_element.items():
        chosen = [frames[place] for place in places]
        ptr = torch.tensor([0, *map(len, chosen)]).cumsum(0)
        z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in chosen])
        pos = torch.cat([torch.from_numpy(atoms.positions).double() for atoms in chosen])
        found = relax(Gupta(element), z, pos, ptr_to_batch(ptr), fmax=fmax, max_steps=steps, progress=progress)
        for number, (place, atoms) in enumerate(zip(places, chosen, strict=True)):
            info = {
                **lasting_info(atoms),
                "gupta_energy": float(found.energy[number]),
                "gupta_fmax": float(found.fmax[number]),
                "gupta_steps": int(found.steps[number]),
                "converged": bool(found.converged[number]),
            }
            positions = found.pos[ptr[number] : ptr[number + 1]].numpy()
            result[place] = Atoms(atoms.numbers, positions, info=info)
    return [result[place] for place in range(len(frames))]
