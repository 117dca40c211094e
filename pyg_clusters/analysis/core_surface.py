"""Core and surface of clusters in the eyes of a trained model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_masses
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import balanced_accuracy_score, recall_score, silhouette_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import check_radii, ptr_to_batch, shell_counts, shell_of
from pyg_clusters.models.dart import DART

REGIONS: tuple[str, str, str] = ("core", "between", "surface")
"""Names of the regions 0, 1, 2."""

FOLDS: int = 5
"""Folds of the cross-validation."""

ATOMS_AT_ONCE: int = 8192
"""Bound on the atoms of a batch, of whole clusters."""

SILHOUETTE_ATOMS: int = 10_000
"""Most atoms that a silhouette is computed of; of more, so many are drawn."""


@dataclass
class AtomicFeatures:
    """What a model knows of the atoms of a set of clusters.

    Attributes:
        energy: Share of the atom in the energy of its cluster in eV, ``[num_atoms]``.
        features: Output of the third (last) hidden layer of the interaction network, ``[num_atoms, 32]``.
        counts: Shell counts that the model sees, ``[num_atoms, num_shells]``.
    """

    energy: np.ndarray
    features: np.ndarray
    counts: np.ndarray


@dataclass
class Probe:
    """How well regions can be read off linearly, in clusters that the reading was not fitted to.

    Attributes:
        balanced_accuracy: Mean of the recalls of the regions, over the predictions of all folds; 1/3 is chance.
        recall: Fraction of the atoms of each region that are recognised, ``[num_regions]``.
        fold_spread: Standard deviation of the balanced accuracy over the folds.
    """

    balanced_accuracy: float
    recall: np.ndarray
    fold_spread: float


def atomic_features(model: DART, z: Tensor, pos: Tensor, ptr: Tensor) -> AtomicFeatures:
    """Energies, features and counts of all atoms.

    Clusters are centred in their own precision before they are cast to that of the model.

    Args:
        model: A trained model; it is evaluated where it lies.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
    """
    weight = next(model.parameters())
    energies, features, counts = [], [], []
    for first, last in _whole_clusters(ptr):
        atoms = slice(int(ptr[first]), int(ptr[last]))
        own_ptr = ptr[first : last + 1] - ptr[first]
        batch = ptr_to_batch(own_ptr)
        centred = centre_of_mass(torch.ones_like(z[atoms]), pos[atoms], own_ptr)
        places = (pos[atoms] - centred[batch]).to(weight.device, weight.dtype)
        with torch.no_grad():
            result = model.energies_and_features(z[atoms].to(weight.device), places, batch.to(weight.device))
        energies.append(result.energy.cpu().double().numpy())
        features.append(result.features.cpu().numpy())
        counts.append(shell_counts(places, own_ptr.to(weight.device), model.radii).cpu().numpy())
    return AtomicFeatures(*(np.concatenate(parts) for parts in (energies, features, counts)))


def _whole_clusters(ptr: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of clusters with at most about ``ATOMS_AT_ONCE`` atoms."""
    sizes = torch.unique_consecutive((ptr[1:] - 1) // ATOMS_AT_ONCE, return_counts=True)[1].tolist()
    last = 0
    for size in sizes:
        first, last = last, last + size
        yield first, last


def centre_of_mass(masses: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    """Centres of mass of clusters, ``[num_graphs, 3]`` in Å.

    Args:
        masses: In any unit, ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
    """
    batch, masses = ptr_to_batch(ptr), masses.to(pos.dtype)
    total = pos.new_zeros(ptr.numel() - 1).index_add(0, batch, masses)
    weighted = pos.new_zeros(ptr.numel() - 1, 3).index_add(0, batch, masses[:, None] * pos)
    return weighted / total[:, None]


def regions(z: Tensor, pos: Tensor, ptr: Tensor, radii: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Core, surface and what is between, by the distance from the centre of mass (Modee et al. 2021, section 3.4).

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        radii: An atom closer to the centre than the first (in Å) is core (0), one further than the second surface
            (2), others are between (1).

    Returns:
        Region ``[num_atoms]`` and distance from the centre of mass ``[num_atoms]`` in Å.

    Example:
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, -7.0, 0.0]])
        >>> regions(torch.full((5,), 31), pos, torch.tensor([0, 5]), (3.49, 6.3))[0]
        array([0, 1, 1, 2, 2])
    """
    boundaries = check_radii(radii)
    masses = torch.as_tensor(atomic_masses)[z]
    away = pos - centre_of_mass(masses, pos, ptr)[ptr_to_batch(ptr)]
    squared = away.square().sum(dim=1)
    return shell_of(squared, boundaries).numpy(), squared.sqrt().numpy()


def check_regions(region: np.ndarray):
    """Makes sure that there is an atom in each region.

    Raises:
        InputError: If there is none in one of them.
    """
    for number, name in enumerate(REGIONS):
        if not (region == number).any():
            raise InputError(
                f"no atom of the clusters is in the region {name!r}: choose other clusters (--sizes) or other "
                "distances from the centre of mass (--radii)"
            )


def linear_probe(features: np.ndarray, region: np.ndarray, groups: np.ndarray) -> Probe:
    """Reads the region of each atom off its features, linearly, in clusters that were left out of the fit.

    Features are standardised with the means and variances of the atoms that are fitted to; a multinomial logistic
    regression weighs the regions equally. Of five folds, each is predicted by a fit to the other four; the atoms of a
    group stay together.

    Args:
        features: ``[num_atoms, num_features]``.
        region: ``[num_atoms]``.
        groups: Cluster of each atom, or what else is not to be split, ``[num_atoms]``.

    Raises:
        InputError: If there are fewer than two groups, or a region is missing from the atoms that are fitted to.
    """
    folds = min(FOLDS, len(np.unique(groups)))
    if folds < 2:
        raise InputError("cross-validation needs at least two clusters (or groups of them); give more frames")
    predicted = np.empty_like(region)
    of_folds = []
    for fitted, left_out in GroupKFold(folds).split(features, region, groups):
        if len(np.unique(region[fitted])) < len(REGIONS):
            raise InputError("too few clusters for a cross-validation: a region has no atom in some; give more frames")
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
        predicted[left_out] = probe.fit(features[fitted], region[fitted]).predict(features[left_out])
        present = np.unique(region[left_out])
        recall = recall_score(region[left_out], predicted[left_out], labels=present, average=None)
        of_folds.append(float(np.mean(recall)))
    return Probe(
        balanced_accuracy=float(balanced_accuracy_score(region, predicted)),
        recall=recall_score(region, predicted, labels=range(len(REGIONS)), average=None),
        fold_spread=float(np.std(of_folds)),
    )


def silhouette(features: np.ndarray, region: np.ndarray, seed: int = 0) -> float:
    """Mean silhouette coefficient of the regions, from -1 to 1; 0 where they overlap. Features are standardised.

    Of more than 10,000 atoms so many are drawn.

    Args:
        features: ``[num_atoms, num_features]``.
        region: ``[num_atoms]``; at least two occur.
        seed: Of the drawing.
    """
    sample = SILHOUETTE_ATOMS if len(region) > SILHOUETTE_ATOMS else None
    standardised = StandardScaler().fit_transform(features)
    return float(silhouette_score(standardised, region, sample_size=sample, random_state=seed))


def feature_map(features: np.ndarray, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """t-SNE of standardised features in two dimensions, ``[num_atoms, 2]``, started from principal components.

    Args:
        features: ``[num_atoms, num_features]``.
        perplexity: About the number of neighbours that an atom keeps; below the number of atoms.
        seed: Another seed draws another map.

    Raises:
        InputError: If the perplexity is not positive or not below the number of atoms.
    """
    if not 0 < perplexity < len(features):
        raise InputError(
            f"the perplexity must be positive and below the number of atoms ({len(features)}), got {perplexity:g}"
        )
    mapping = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return mapping.fit_transform(StandardScaler().fit_transform(features).astype(np.float32))
