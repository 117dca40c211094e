"""Analysis of core and surface atoms in the features of a trained model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import atomic_masses
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import balanced_accuracy_score, recall_score, silhouette_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pyg_clusters.analysis.frame_set import FrameSet
from pyg_clusters.errors import InputError
from pyg_clusters.frames import BadFrame
from pyg_clusters.geometry import GALLIUM_RADII, check_radii, ptr_to_batch, shell_of, whole_clusters
from pyg_clusters.models.training_domain import domain_of
from pyg_clusters.pairs import shell_counts
from pyg_clusters.positions import centred

REGIONS: tuple[str, str, str] = ("core", "between", "surface")
"""Names of the regions 0, 1, 2."""

FOLDS: int = 5  # folds of the cross-validation
ATOMS_AT_ONCE: int = 8192  # approximate maximum number of atoms in a batch of whole clusters
SILHOUETTE_ATOMS: int = 10_000  # maximum number of atoms of a silhouette; larger sets are sampled


@dataclass
class AtomicFeatures:
    """Atomic energies, features and shell counts of a model."""

    energy: np.ndarray  #: Contribution of each atom to the energy of its cluster in eV, ``[num_atoms]``.
    #: Features of the model, for DART the output of its last hidden layer, ``[num_atoms, num_features]``.
    features: np.ndarray
    counts: np.ndarray  #: Shell counts, for one element the input of DART, ``[num_atoms, num_shells]``.


@dataclass
class Probe:
    """Cross-validated accuracy of a linear classifier of the regions."""

    balanced_accuracy: float  #: Mean recall of the regions over the predictions of all folds; 1/3 is chance level.
    recall: np.ndarray  #: Fraction of the atoms of each region that are classified correctly, ``[num_regions]``.
    fold_spread: float  #: Standard deviation of the balanced accuracy over the folds.


def atomic_features(
    model: Any, z: Tensor, pos: Tensor, ptr: Tensor, radii: tuple[float, ...] = GALLIUM_RADII
) -> AtomicFeatures:
    """Compute atomic energies, features and shell counts of all atoms.

    Clusters are centred in double precision before they are converted to the precision of the model.

    Args:
        model: A trained model with atomic energies and features; it is evaluated on its own device.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        radii: Shell radii in Å, for models that have none.
    """
    radii, weight = getattr(model, "radii", radii), next(model.parameters())
    energies, features, counts = [], [], []
    for atoms, own_ptr in whole_clusters(ptr, ATOMS_AT_ONCE):
        centred_pos = torch.from_numpy(centred(pos[atoms].numpy(), own_ptr.numpy())).to(weight.device, weight.dtype)
        with torch.no_grad():
            inputs = z[atoms].to(weight.device), centred_pos, ptr_to_batch(own_ptr).to(weight.device)
            energies.append(model.atomic_energies(*inputs).cpu().double().numpy())
            features.append(model.features(*inputs).cpu().numpy())
        counts.append(shell_counts(centred_pos, own_ptr.to(weight.device), radii).cpu().numpy())
    return AtomicFeatures(*(np.concatenate(parts) for parts in (energies, features, counts)))


def centre_of_mass(masses: Tensor, pos: Tensor, ptr: Tensor) -> Tensor:
    """Centres of mass of clusters, ``[num_graphs, 3]`` in Å, from masses in any unit ``[num_atoms]``."""
    batch, masses = ptr_to_batch(ptr), masses.to(pos.dtype)
    total = pos.new_zeros(ptr.numel() - 1).index_add(0, batch, masses)
    weighted = pos.new_zeros(ptr.numel() - 1, 3).index_add(0, batch, masses[:, None] * pos)
    return weighted / total[:, None]


def regions(z: Tensor, pos: Tensor, ptr: Tensor, radii: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Assign atoms to core, surface and the region between by the distance from the centre of mass.

    The regions are those of Modee et al. 2021, section 3.4.

    Args:
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å.
        ptr: Offsets of the clusters ``[num_graphs + 1]``.
        radii: Atoms closer to the centre than the first radius (in Å) are core (0), those further than the second are
            surface (2), others are between (1).

    Returns:
        Region ``[num_atoms]`` and distance from the centre of mass ``[num_atoms]`` in Å.

    Example:
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [-5.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, -7.0, 0.0]])
        >>> regions(torch.full((5,), 31), pos, torch.tensor([0, 5]), (3.49, 6.3))[0]
        array([0, 1, 1, 2, 2])
    """
    boundaries = check_radii(radii)
    masses = torch.as_tensor(atomic_masses)[z]
    offset = pos - centre_of_mass(masses, pos, ptr)[ptr_to_batch(ptr)]
    squared = offset.square().sum(dim=1)
    return shell_of(squared, boundaries).numpy(), squared.sqrt().numpy()


def check_regions(region: np.ndarray):
    """Raise an error if a region is empty."""
    for index, name in enumerate(REGIONS):
        if not (region == index).any():
            raise InputError(
                f"no atom of the clusters is in the region {name!r}: choose other clusters (--sizes) or other "
                "distances from the centre of mass (--radii)"
            )


def linear_probe(features: np.ndarray, region: np.ndarray, groups: np.ndarray) -> Probe:
    """Cross-validate a linear classifier of the region of each atom.

    Features are standardised with the means and variances of the training atoms. The classifier is a multinomial
    logistic regression with equal weights of the regions. Each of five folds is predicted by a fit to the other four,
    and the atoms of a group are kept in one fold.

    Args:
        features: Features ``[num_atoms, num_features]``.
        region: Region ``[num_atoms]``.
        groups: Cluster of each atom, or another group that must not be split, ``[num_atoms]``.

    Raises:
        InputError: If there are fewer than two groups, or a region is missing from the training atoms of a fold.
    """
    folds = min(FOLDS, len(np.unique(groups)))
    if folds < 2:
        raise InputError("cross-validation needs at least two clusters (or groups of clusters); give more frames")
    predicted = np.empty_like(region)
    fold_accuracies = []
    for train, test in GroupKFold(folds).split(features, region, groups):
        if len(np.unique(region[train])) < len(REGIONS):
            raise InputError("too few clusters for a cross-validation: a region has no atom in some; give more frames")
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
        predicted[test] = probe.fit(features[train], region[train]).predict(features[test])
        present = np.unique(region[test])
        recall = recall_score(region[test], predicted[test], labels=present, average=None)
        fold_accuracies.append(float(np.mean(recall)))
    return Probe(
        balanced_accuracy=float(balanced_accuracy_score(region, predicted)),
        recall=recall_score(region, predicted, labels=range(len(REGIONS)), average=None),
        fold_spread=float(np.std(fold_accuracies)),
    )


def silhouette(features: np.ndarray, region: np.ndarray, seed: int = 0) -> float:
    """Compute the mean silhouette coefficient of the regions in standardised features.

    It ranges from -1 to 1, and is 0 if the regions overlap.

    Args:
        features: Features ``[num_atoms, num_features]``.
        region: Region ``[num_atoms]``, with at least two different values.
        seed: Seed of the sample of 10,000 atoms that is taken from larger sets.
    """
    sample = SILHOUETTE_ATOMS if len(region) > SILHOUETTE_ATOMS else None
    standardised = StandardScaler().fit_transform(features)
    return float(silhouette_score(standardised, region, sample_size=sample, random_state=seed))


def feature_map(features: np.ndarray, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Compute the two-dimensional t-SNE map ``[num_atoms, 2]`` of standardised features, initialised by PCA.

    Args:
        features: Features ``[num_atoms, num_features]``.
        perplexity: Approximate number of neighbours of an atom in the map; must be below the number of atoms.
        seed: Random seed.

    Raises:
        InputError: If the perplexity is not positive or not below the number of atoms.
    """
    if not 0 < perplexity < len(features):
        raise InputError(
            f"the perplexity must be positive and below the number of atoms ({len(features)}), got {perplexity:g}"
        )
    mapping = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return mapping.fit_transform(StandardScaler().fit_transform(features).astype(np.float32))


@dataclass
class CoreSurface:
    """Core and surface of a set of clusters in the features of a model."""

    frames: FrameSet  #: The clusters.
    #: Outer radius of the core and inner radius of the surface, from the centre of mass in Å.
    radii: tuple[float, float]
    region: np.ndarray  #: Region of each atom, 0 to 2, ``[num_atoms]``.
    distance: np.ndarray  #: Distance from the centre of mass in Å ``[num_atoms]``.
    atoms: AtomicFeatures  #: Energies, features and counts of the atoms.
    points: np.ndarray  #: t-SNE map of the features ``[num_atoms, 2]``.
    probes: dict[str, Probe]  #: Linear probe of the features, the counts, and both.
    silhouettes: dict[str, float]  #: Silhouette of the three regions in each of these, and in the map.
    settings: dict[str, object]  #: Perplexity, seed and groups.
    trained_sizes: tuple[int, int] | None  #: Smallest and largest size that the model was trained on, if known.
    out: str | None = None  #: Folder of the results, if they were written.

    @property
    def bad(self) -> list[BadFrame]:
        """Frames that were left out."""
        return self.frames.bad

    @property
    def training_note(self) -> str:
        """Warning if the model may have been trained on these clusters."""
        if self.trained_sizes is None:
            return ""
        (first, last), sizes = self.trained_sizes, self.frames.sizes
        if not ((sizes >= first) & (sizes <= last)).any():
            return ""
        return f"the model was trained on clusters of {first} to {last} atoms, which may include these or related ones"

    def __str__(self) -> str:
        atoms = ", ".join(f"{name} {(self.region == index).sum():,}" for index, name in enumerate(REGIONS))
        lines = [f"{len(self.frames):,} clusters, {len(self.frames.z):,} atoms: {atoms}"]
        lines += [
            f"linear probe on {name}: balanced accuracy {probe.balanced_accuracy:.3f} (chance 0.333), silhouette "
            f"{self.silhouettes[name]:.3f}"
            for name, probe in self.probes.items()
        ]
        lines += [f"note: {self.training_note}"] if self.training_note else []
        return "\n".join([*lines, *([f"table, figure and report in {self.out}"] if self.out else [])])


def separate_regions(
    model: nn.Module,
    frames: FrameSet,
    radii: tuple[float, float],
    perplexity: float = 30.0,
    seed: int = 0,
    group: str | None = None,
) -> CoreSurface:
    """Measure the separation of core and surface in the features of a model.

    ``radii`` are the outer radius of the core and the inner radius of the surface, from the centre of mass in Å. Frames
    with the same value of the property ``group`` are kept in one fold; by default each cluster is its own group. In
    clusters of several elements, the counts include the element of the atom, which the features contain as well.

    Raises:
        InputError: If one of the regions is empty, or there are too few clusters.
    """
    z, pos, ptr = (torch.from_numpy(values) for values in (frames.z, frames.pos, frames.ptr))
    region, distance = regions(z, pos, ptr, radii)
    check_regions(region)
    atoms = atomic_features(model, z, pos, ptr, radii)
    labels = np.arange(len(frames)) if group is None else np.unique(frames.properties[group], return_inverse=True)[1]
    groups = np.repeat(labels, frames.sizes)
    counts = atoms.counts.astype(float)
    if len(elements := np.unique(frames.z)) > 1:
        counts = np.column_stack([counts, frames.z[:, None] == elements])
    spaces = {
        "features": atoms.features,
        "counts": counts,
        "features and counts": np.column_stack([atoms.features, counts]),
    }
    probes = {name: linear_probe(values, region, groups) for name, values in spaces.items()}
    points = feature_map(atoms.features, perplexity, seed)
    spaces["map"] = points
    return CoreSurface(
        frames=frames,
        radii=radii,
        region=region,
        distance=distance,
        atoms=atoms,
        points=points,
        probes=probes,
        silhouettes={name: silhouette(values, region, seed) for name, values in spaces.items()},
        settings={
            "perplexity": perplexity,
            "seed": seed,
            "groups": group or "cluster",
            "num_groups": len(np.unique(labels)),
        },
        trained_sizes=domain.size_range if (domain := domain_of(model)) else None,
    )
