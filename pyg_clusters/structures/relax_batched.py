"""Relaxing frames with the Gupta potential or a model, many at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from ase import Atoms
from torch import nn

from pyg_clusters.frames.electronic_state import neutral_problem
from pyg_clusters.frames.provenance import at_new_positions
from pyg_clusters.geometry import ptr_to_batch
from pyg_clusters.models import load_model
from pyg_clusters.models.checkpoint import available_models
from pyg_clusters.models.training_domain import geometry_range_of
from pyg_clusters.structures import GUPTA_PARAMETERS, Gupta, relax
from pyg_clusters.structures.forces import EnergyFunction
from pyg_clusters.structures.model_calculator import model_problem

PAIRS_AT_ONCE = 1_000_000


LEFT_RANGE = "left_range"
"""Key of what is said of a frame that was stopped outside the geometries in which its energy is to be trusted."""


class BatchedEnergy(Protocol):
    """Energies of many frames at once."""

    name: str
    """Prefix of the names of the results."""
    dtype: torch.dtype
    """Precision of the positions."""
    device: torch.device
    """Where it is computed."""

    def problem(self, atoms: Atoms) -> str | None:
        """Reason why a frame has no energy, if any."""

    def energy_of(self, element: str) -> EnergyFunction:
        """The energy of frames whose first atom is of this element."""


class GuptaEnergy:
    """The Gupta potential of whatever element a frame is of."""

    name = "gupta"
    dtype = torch.double
    device = torch.device("cpu")

    def problem(self, atoms: Atoms) -> str | None:
        symbols = atoms.get_chemical_symbols()
        for number, symbol in enumerate(symbols):
            if symbol not in GUPTA_PARAMETERS:
                return f"atom {number} is {symbol}, but the Gupta potential knows only {', '.join(GUPTA_PARAMETERS)}"
            if symbol != symbols[0]:
                others = f"atom {number} is {symbol}, atom 0 {symbols[0]}"
                return f"{others}, but the Gupta potential is for one element alone"
        return neutral_problem(atoms, "the Gupta potential")

    def energy_of(self, element: str) -> EnergyFunction:
        return Gupta(element)


class ModelEnergy:
    """A trained model.

    Raises:
        InputError: If its energy has no forces.
    """

    name = "model"

    def __init__(self, model: nn.Module):
        self.model = model
        weight = next(model.parameters())
        self.dtype, self.device = weight.dtype, weight.device

    def problem(self, atoms: Atoms) -> str | None:
        return model_problem(self.model, atoms)

    def energy_of(self, element: str) -> EnergyFunction:
        return self.model


def batched_energy(name: str) -> BatchedEnergy | None:
    """Energy for relaxing many frames at once: ``gupta``, a run, a saved or a pretrained model; else none."""
    if name == "gupta":
        return GuptaEnergy()
    if Path(name).is_dir() or name in available_models():
        return ModelEnergy(load_model(name))
    return None


def chunks(frames: Iterable[Atoms]) -> Iterator[list[Atoms]]:
    """Gathers frames to be relaxed at once, with at most about a million pairs of atoms."""
    chunk: list[Atoms] = []
    largest = 0
    for atoms in frames:
        largest = max(largest, len(atoms))
        if chunk and (len(chunk) + 1) * largest**2 > PAIRS_AT_ONCE:
            yield chunk
            chunk, largest = [], len(atoms)
        chunk.append(atoms)
    if chunk:
        yield chunk


def relax_chunk(
    frames: Sequence[Atoms], by: BatchedEnergy, fmax: float, steps: int, progress: Callable[[int], None]
) -> list[Atoms]:
    """Relaxed copies of frames, in their order."""
    of_element: dict[str, list[int]] = defaultdict(list)
    for place, atoms in enumerate(frames):
        of_element[atoms.get_chemical_symbols()[0]].append(place)
    result: dict[int, Atoms] = {}
    for element, places in of_element.items():
        chosen = [frames[place] for place in places]
        ptr = torch.tensor([0, *map(len, chosen)]).cumsum(0)
        z = torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in chosen])
        centres = [atoms.positions.mean(axis=0) for atoms in chosen]
        pos = torch.cat([torch.from_numpy(atoms.positions - c) for atoms, c in zip(chosen, centres, strict=True)])
        energy, batch = by.energy_of(element), ptr_to_batch(ptr).to(by.device)
        start = pos.to(by.device, by.dtype)
        found = relax(energy, z.to(by.device), start, batch, fmax=fmax, max_steps=steps, progress=progress)
        trained = geometry_range_of(energy)
        for number, (place, atoms) in enumerate(zip(places, chosen, strict=True)):
            positions = found.pos[ptr[number] : ptr[number + 1]].double().cpu().numpy() + centres[number]
            result[place] = at_new_positions(atoms, positions)
            result[place].info |= {
                f"{by.name}_energy": float(found.energy[number]),
                f"{by.name}_fmax": float(found.fmax[number]),
                f"{by.name}_steps": int(found.steps[number]),
                "converged": bool(found.converged[number]),
            }
            if found.left_range[number]:
                result[place].info[LEFT_RANGE] = (
                    trained.reason(result[place]) or "outside what the model was trained on"
                )
    return [result[place] for place in range(len(frames))]
