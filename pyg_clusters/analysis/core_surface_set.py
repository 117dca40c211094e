"""What a trained model makes of core and surface in a set of clusters."""

from dataclasses import dataclass

import numpy as np
import torch

from pyg_clusters.analysis.core_surface import (
    REGIONS,
    AtomicFeatures,
    Probe,
    atomic_features,
    check_regions,
    feature_map,
    linear_probe,
    regions,
    silhouette,
)
from pyg_clusters.datasets.frame_sets import FrameSet
from pyg_clusters.models import DART


@dataclass
class CoreSurface:
    """Core and surface of a set of clusters as a model sees them.

    Attributes:
        frames: The clusters.
        radii: Where the core ends and the surface begins, distances from the centre of mass in Å.
        region: Region of each atom, 0 to 2, ``[num_atoms]``.
        distance: From the centre of mass in Å ``[num_atoms]``.
        atoms: What the model knows of them.
        places: Map of the features by t-SNE ``[num_atoms, 2]``.
        probes: How well the regions are read off each of :data:`SPACES` in clusters left out.
        silhouettes: Silhouette of the three regions in each space, and in the map.
        core_surface_silhouettes: The same for the atoms of core and surface alone.
        settings: Perplexity, seed, groups.
    """

    frames: FrameSet
    radii: tuple[float, float]
    region: np.ndarray
    distance: np.ndarray
    atoms: AtomicFeatures
    places: np.ndarray
    probes: dict[str, Probe]
    silhouettes: dict[str, float]
    core_surface_silhouettes: dict[str, float]
    settings: dict[str, object]


def analyse(
    model: DART,
    frames: FrameSet,
    radii: tuple[float, float],
    perplexity: float = 30.0,
    seed: int = 0,
    group: str | None = None,
) -> CoreSurface:
    """Compares the regions of the atoms with what the model knows of them.

    Args:
        model: A trained DART.
        frames: Clusters of elements that it knows.
        radii: Where the core ends and the surface begins, distances from the centre of mass in Å.
        perplexity: Of t-SNE.
        seed: Of t-SNE, and of the drawing of atoms for silhouettes of more than 10,000.
        group: Property of the frames: those that share it are kept together in the folds. By default each cluster is
            a group of its own.

    Raises:
        InputError: If there is no atom in one of the regions, or there are too few clusters.
    """
    z, pos, ptr = (torch.from_numpy(values) for values in (frames.z, frames.pos, frames.ptr))
    region, distance = regions(z, pos, ptr, radii)
    check_regions(region)
    atoms = atomic_features(model, z, pos, ptr)
    labels = np.arange(len(frames)) if group is None else np.unique(frames.properties[group], return_inverse=True)[1]
    groups = np.repeat(labels, frames.sizes)
    spaces = {
        "features": atoms.features,
        "counts": atoms.counts.astype(float),
        "features and counts": np.column_stack([atoms.features, atoms.counts]),
    }
    probes = {name: linear_probe(values, region, groups) for name, values in spaces.items()}
    places = feature_map(atoms.features, perplexity, seed)
    spaces["map"] = places
    ends = region != REGIONS.index("between")
    return CoreSurface(
        frames=frames,
        radii=radii,
        region=region,
        distance=distance,
        atoms=atoms,
        places=places,
        probes=probes,
        silhouettes={name: silhouette(values, region, seed) for name, values in spaces.items()},
        core_surface_silhouettes={
            name: silhouette(values[ends], region[ends], seed) for name, values in spaces.items()
        },
        settings={
            "perplexity": perplexity,
            "seed": seed,
            "groups": group or "cluster",
            "num_groups": len(np.unique(labels)),
        },
    )
