"""The shipped gallium clusters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from pyg_clusters.datasets.card import Processing, ShippedClusters
from pyg_clusters.datasets.splits import Split, group_split
from pyg_clusters.errors import InputError


class GalliumClusters(ShippedClusters):
    r"""Gallium clusters of 31 to 70 atoms with binding energies in eV, which replace the data of
    `DART <https://doi.org/10.1039/d1cp02956h>`_ (Modee et al. 2021) with the same sizes.

    The energies are those of the Gaussian approximation potential (GAP) for gallium nanoclusters of Banik et al.
    (2024), which was fitted to PBE: **GAP labels, not DFT**. Binding energies are about -2.4 to -2.5 eV per atom. The
    files are shipped with the package (CC-BY-4.0) and verified against the checksums of their card.

    ==================  ======  ==================  =================================================
    subset              frames  sizes               contents
    ==================  ======  ==================  =================================================
    ``minima``          6,030   31 to 70            distinct local minima, 132 to 162 per size; a
                                                    group is a segment of the search
    ``md_46``           1,000   46                  molecular dynamics at 900 K, a frame every 400 fs
    ``md_57``           1,000   57                  the same for another size
    ``md_46_quenched``  1,000   46                  each frame of ``md_46`` quenched to its minimum
    ``md_57_quenched``  1,000   57                  each frame of ``md_57`` quenched to its minimum
    ``md_quench``       7,400   31 to 70, except    hot frames (500 to 1,100 K), with the energy of
                                46, 57 and 60       the minimum each quenches to; a group is a run
    ``forces``          3,500   31 to 70            off-equilibrium frames (300 to 1,500 K) with
                                                    forces; a group is a run
    ``forces_minima``   9,530   31 to 70            ``forces`` and ``minima``, with forces of zero for
                                                    the minima; a split by group splits each separately
    ``quench_minima``   13,430  31 to 70            ``md_quench`` and ``minima``, with the energy of the
                                                    minimum that each quenches to (its own for a minimum)
    ==================  ======  ==================  =================================================

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å (centroid at the origin), ``y [1]`` in eV, ``idx [1]``,
    ``cluster_size [1]``, ``group [1]``; frames of dynamics also ``temperature [1]`` in K and ``time_fs [1]``, frames of
    ``md_*`` ``quench_binding_energy [1]`` in eV, frames of ``forces`` ``force [num_atoms, 3]`` in eV/Å.

    Args:
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/gallium_clusters`` in
            the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        subset (str): One of the above.
        target (str): ``"binding_energy"``, or for ``md_*`` and ``quench_minima`` also ``"quench_binding_energy"``, the
            energy of the minimum that a frame quenches to (both in eV).
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.

    Example:
        >>> dataset = GalliumClusters(subset="md_46")
        >>> len(dataset), dataset[0].pos.shape, dataset[0].y
        (1000, torch.Size([46, 3]), tensor([-107.0524]))
    """

    NAME = "gallium_clusters"

    SUBSETS: dict[str, tuple[str, ...]] = {
        "minima": (),
        "md_46": ("temperature", "time_fs", "quench_binding_energy"),
        "md_57": ("temperature", "time_fs", "quench_binding_energy"),
        "md_46_quenched": ("temperature", "time_fs", "quench_binding_energy"),
        "md_57_quenched": ("temperature", "time_fs", "quench_binding_energy"),
        "md_quench": ("temperature", "time_fs", "quench_binding_energy"),
        "forces": ("temperature", "time_fs"),
        "forces_minima": (),
        "quench_minima": (),
    }
    """Additional values per cluster of each subset."""

    FILES: dict[str, tuple[str, ...]] = {
        "forces_minima": ("forces", "minima"),
        "quench_minima": ("md_quench", "minima"),
    }
    """Files of the subsets that combine several files."""

    def __init__(
        self,
        root: str | Path | None = None,
        subset: str = "minima",
        target: str = "binding_energy",
        **kwargs: Unpack[Processing],
    ):
        if subset not in self.SUBSETS:
            raise InputError(f"GalliumClusters has no subset {subset!r}; choose one of {', '.join(self.SUBSETS)}")
        quenched = subset == "quench_minima" or "quench_binding_energy" in self.SUBSETS[subset]
        targets = ("binding_energy", "quench_binding_energy") if quenched else ("binding_energy",)
        if target not in targets:
            raise InputError(f"the subset {subset!r} has no target {target!r}; choose one of {', '.join(targets)}")
        self.subset = subset
        parts = self.FILES.get(subset, (subset,))
        super().__init__(
            root,
            [f"gallium_{part}.extxyz" for part in parts],
            target=target,
            group="group",
            keep=self.SUBSETS[subset],
            forces="forces" in parts,
            minima=["gallium_minima.extxyz"] if len(parts) > 1 else [],
            minima_target="binding_energy" if subset == "quench_minima" else None,
            **kwargs,
        )

    @property
    def file_of_cluster(self) -> Tensor:
        """Index in :attr:`files` of the file of each cluster, ``[num_graphs]`` (long)."""
        ends = torch.tensor([self.card.files[file.name].frames for file in self.files]).cumsum(0)
        return torch.bucketize(self._of_clusters("idx"), ends, right=True)

    def group_split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
        """Split each file separately by :attr:`groups` with :func:`~pyg_clusters.datasets.group_split`."""
        parts = []
        for file in self.file_of_cluster.unique():
            clusters = (self.file_of_cluster == file).nonzero().flatten()
            split = group_split(self.groups[clusters], fractions, seed)
            parts.append([clusters[part] for part in (split.train, split.val, split.test)])
        return Split(*(torch.cat(part) for part in zip(*parts, strict=True)))
