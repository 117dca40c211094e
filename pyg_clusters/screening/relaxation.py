"""Candidates of a screening, relaxed with the forces of the model."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from pyg_clusters.errors import InputError
from pyg_clusters.frames import AtomsFrame
from pyg_clusters.inference import Predictor
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.screening.candidates import Candidate, Screening, by_composition, ranks_of
from pyg_clusters.structures import energy_and_forces
from pyg_clusters.structures.relax_batched import LEFT_RANGE, ModelEnergy, chunks, relax_chunk, relax_progress

RESULTS = ("model_energy", "model_fmax", "model_steps", "converged")


def check_forces(predictor: Predictor):
    """Checks that a model has forces, before anything is computed with it.

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
    """Structures at the local minima of a model nearest to them, with :data:`RESULTS` in their ``info``.

    Args:
        structures: What is relaxed, in batches of about a million pairs of atoms.
        predictor: Of a model with forces.
        fmax: A structure is relaxed when no force on an atom is larger, in eV/Å.
        steps: Most evaluations of energy and forces for a structure.
    """
    frames = (AtomsFrame("", number, atoms) for number, atoms in enumerate(structures))
    by = ModelEnergy(predictor.model)
    found: list[Atoms] = []
    with relax_progress() as progress:
        task = progress.add_task("frames", total=len(structures))
        for chunk in chunks(frames, []):
            found += relax_chunk(chunk, by, fmax, steps, lambda count: progress.advance(task, count))
    return found


def relax_candidates(screening: Screening, predictor: Predictor, fmax: float, steps: int) -> Screening:
    """The screening with its candidates at the local minima of the model nearest to them.

    They are relaxed in batches of about a million pairs of atoms, so that what is needed does not grow with their
    number but for the candidates themselves. Energies, ranks and spreads are those of the relaxed structures. One
    whose energy is no longer a number is left out with a warning. One that left the geometries which the model was
    trained on was stopped there; these come last, with a warning of how many they are.

    Args:
        screening: Its candidates are what is relaxed.
        predictor: Of a model with forces.
        fmax: A structure is relaxed when no force on an atom is larger, in eV/Å.
        steps: Most evaluations of energy and forces for a structure.

    Raises:
        InputError: If none can be relaxed.
    """
    relaxed: list[Candidate] = []
    left: list[str] = []
    found = relax_atoms([one.atoms for one in screening.candidates], predictor, fmax, steps)
    for one, atoms in zip(screening.candidates, found, strict=True):
        candidate = _relaxed(one, atoms)
        if not candidate.inside:
            left.append(f"{one.file}, frame {one.frame}: {atoms.info[LEFT_RANGE]}")
        if np.isfinite(candidate.energy) and np.isfinite(atoms.positions).all():
            relaxed.append(candidate)
    warn_of_left_range(left, len(found))
    lost = len(screening.candidates) - len(relaxed)
    if lost:
        warnings.warn(f"{lost} frames have no finite energy after relaxing and were left out", stacklevel=2)
    if screening.candidates and not relaxed:
        raise InputError("no frame has a finite energy after relaxing: the model cannot relax these frames")
    ranked = list(_with_ranks(_with_spreads(relaxed, predictor)))
    return replace(screening, candidates=ranked, num_left_range=len(left))


def warn_of_left_range(reasons: Sequence[str], num_frames: int):
    """Warns of frames that left the geometries which a model was trained on."""
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {num_frames} frames left the geometries that the model was trained on while they were "
            f"relaxed, and were stopped there: they come after all others (the first: {reasons[0]})",
            stacklevel=3,
        )


def _relaxed(candidate: Candidate, atoms: Atoms) -> Candidate:
    found = {name: atoms.info[name] for name in RESULTS}
    return replace(
        candidate,
        atoms=atoms,
        energy=found["model_energy"],
        relaxation={"initial_pred_energy": candidate.energy, **found, LEFT_RANGE: atoms.info.get(LEFT_RANGE, "")},
    )


def _with_spreads(candidates: list[Candidate], predictor: Predictor) -> list[Candidate]:
    """The spreads of a model that gives them are those at the new positions."""
    if not predictor.gives_spread or not candidates:
        return candidates
    spreads = predictor([candidate.atoms for candidate in candidates]).spread
    assert spreads is not None
    return [replace(one, spread=float(spread)) for one, spread in zip(candidates, spreads, strict=True)]


def _with_ranks(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Composition by composition, the lowest first, and last those that left what the model was trained on."""
    for kind in by_composition(candidates):
        ranks = ranks_of(np.array([candidate.energy for candidate in kind]))
        ranks = ranks_of(ranks + len(kind) * np.array([not candidate.inside for candidate in kind]))
        for place in np.argsort(ranks):
            yield replace(kind[place], rank=int(ranks[place]))
