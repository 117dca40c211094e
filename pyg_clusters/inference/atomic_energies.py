"""Shares of the atoms in the energies that a model gives."""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from pyg_clusters.inference.predictor import Predictor


@torch.no_grad()
def atomic_energies(predictor: Predictor, clusters: Sequence[Atoms]) -> list[np.ndarray] | None:
    """Energies of the atoms ``[num_atoms]`` of each cluster in eV, or none if the model has no such thing.

    Args:
        predictor: Of a model with a method ``atomic_energies(z, pos, batch)``
            (:class:`~pyg_clusters.models.DART`, :class:`~pyg_clusters.models.Ensemble`, ...).
        clusters: One is done after the other.
    """
    model = predictor.model
    energies = getattr(model, "atomic_energies", None) or getattr(
        getattr(model, "model", None), "atomic_energies", None
    )
    if energies is None or predictor.transform is not None:
        return None
    found = []
    for cluster in clusters:
        z = torch.from_numpy(cluster.numbers).long().to(predictor.device)
        pos = torch.from_numpy(cluster.positions - cluster.positions.mean(axis=0))
        shares = energies(z, pos.to(predictor.device, predictor.dtype), torch.zeros_like(z))
        shares = shares if isinstance(shares, Tensor) else shares[0]
        found.append(shares.double().cpu().numpy())
    return found
