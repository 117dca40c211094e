"""The shipped copper-gold clusters."""

from collections.abc import Callable
from pathlib import Path

from pyg_clusters.datasets.card import Card
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.gallium import cache_folder
from pyg_clusters.datasets.paths import shipped_folder


class CopperGoldClusters(ClusterDataset):
    """Minima of copper-gold clusters of 20 to 60 atoms of all compositions, with binding energies in eV.

    The energies are those of the effective medium theory of ASE (EMT), a model potential: a set to test methods for
    alloys on. They were found by this package (``pyg-clusters generate quench``), and are grouped by the segment of
    the search: split by group.

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å (centroid at the origin), ``y [1]`` in eV, ``idx [1]``,
    ``cluster_size [1]``, ``group [1]``.

    Args:
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/copper_gold_clusters``
            in the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        transform, pre_transform, pre_filter, force_reload: As those of :class:`ClusterDataset`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ):
        folder = shipped_folder("copper_gold_clusters")
        self.card = Card.load(folder / "card.yaml")
        super().__init__(
            root if root is not None else cache_folder() / "copper_gold_clusters",
            self.card.verify(folder, "copper_gold_minima.extxyz.xz"),
            target="binding_energy",
            group="group",
            transform=transform,
            pre_transform=pre_transform,
            pre_filter=pre_filter,
            force_reload=force_reload,
        )
