"""Candidates relaxed with the forces of the model."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.inference import Predictor
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.progress import FrameProgress
from pyg_clusters.screening.candidates import Candidate, Screening, by_composition, ranks_of
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.structures.relaxation import LEFT_RANGE, ModelEnergy, chunks, relax_chunk

RESULTS = ("model_energy", "model_fmax", "model_steps", "converged")


def check_forces(predictor: Predictor):
    """Check that a model has forces, before anything is computed with it.

    Raises:
        InputError: If it has none.
    """
    model = predictor.model
    if predictor.transform is not None:
        raise InputError(f"{type(model).__name__} needs a graph of each frame and has no forces; SmoothDART has")
    domain = domain_of(model)
    z = torch.full((3,), domain.atomic_numbers[0] if domain else 31, device=predictor.device)
    triangle = torch.tensor([[0.0, 0.0, 0.0], [2.9, 0.0, 0.0], [0.0, 2.9, 0.0]])
    energy_and_forces(model, z, triangle.to(predictor.device, predictor.dtype), torch.zeros_like(z))


def relax_atoms(structures: Sequence[Atoms], predictor: Predictor, fmax: float, steps: int) -> list[Atoms]:
    """Relax structures to the nearest local minima of a model, with :data:`RESULTS` in their ``info``."""
    potential = ModelEnergy(predictor.model)
    minima: list[Atoms] = []
    with FrameProgress("frames relaxed", len(structures), estimate=False) as progress:
        for chunk in chunks(structures):
            minima += relax_chunk(chunk, potential, fmax, steps, progress.advance)
    return minima


def relax_candidates(screening: Screening, predictor: Predictor, fmax: float, steps: int) -> Screening:
    """Relax the candidates of a screening to the nearest local minima of the model.

    Energies, ranks and spreads become those of the relaxed structures. Candidates without a finite energy are omitted
    with a warning. Candidates that leave the geometries of the training are stopped there and ranked last, with a
    warning of their number. Batches of about a million pairs of atoms bound the memory.

    Raises:
        InputError: If none can be relaxed.
    """
    relaxed: list[Candidate] = []
    left: list[str] = []
    minima = relax_atoms([candidate.atoms for candidate in screening.candidates], predictor, fmax, steps)
    for start, atoms in zip(screening.candidates, minima, strict=True):
        candidate = _relaxed(start, atoms)
        if not candidate.inside:
            left.append(f"{start.file}, frame {start.frame}: {atoms.info[LEFT_RANGE]}")
        if np.isfinite(candidate.energy) and np.isfinite(atoms.positions).all():
            relaxed.append(candidate)
    warn_of_left_range(left, len(minima))
    lost = len(screening.candidates) - len(relaxed)
    if lost:
        warnings.warn(f"{lost} frames have no finite energy after relaxing and were left out", stacklevel=2)
    if screening.candidates and not relaxed:
        raise InputError("no frame has a finite energy after relaxing: the model cannot relax these frames")
    ranked = list(_with_ranks(_with_spreads(relaxed, predictor)))
    energy = np.full(len(screening.energy), np.nan)
    energy[[candidate.index for candidate in ranked]] = [candidate.energy for candidate in ranked]
    return replace(screening, candidates=ranked, relaxed=energy, num_left_range=len(left))


def warn_of_left_range(reasons: Sequence[str], num_frames: int):
    """Warn of frames that left the geometries of the training."""
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {num_frames} frames left the geometries that the model was trained on while they were "
            f"relaxed; they were stopped there and are ranked last (the first: {reasons[0]})",
            stacklevel=3,
        )


def _relaxed(candidate: Candidate, atoms: Atoms) -> Candidate:
    results = {name: atoms.info[name] for name in RESULTS}
    return replace(
        candidate,
        atoms=atoms,
        energy=results["model_energy"],
        relaxation={"initial_pred_energy": candidate.energy, **results, LEFT_RANGE: atoms.info.get(LEFT_RANGE, "")},
    )


def _with_spreads(candidates: list[Candidate], predictor: Predictor) -> list[Candidate]:
    """Candidates with the spreads at the new positions, if the model gives them."""
    if not predictor.gives_spread or not candidates:
        return candidates
    spreads = predictor([candidate.atoms for candidate in candidates]).spread
    assert spreads is not None
    return [replace(one, spread=float(spread)) for one, spread in zip(candidates, spreads, strict=True)]


def _with_ranks(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Candidates by composition, the lowest first, those that left the geometries of the training last."""
    for kind in by_composition(candidates):
        ranks = ranks_of(np.array([candidate.energy for candidate in kind]))
        ranks = ranks_of(ranks + len(kind) * np.array([not candidate.inside for candidate in kind]))
        for index in np.argsort(ranks):
            yield replace(kind[index], rank=int(ranks[index]))
