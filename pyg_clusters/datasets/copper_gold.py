"""The shipped copper-gold clusters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from pyg_clusters.datasets.card import Processing, ShippedClusters
from pyg_clusters.datasets.splits import Split, group_split
from pyg_clusters.errors import InputError


class CopperGoldClusters(ShippedClusters):
    """Copper-gold clusters of 20 to 60 atoms of all compositions, with binding energies in eV.

    The energies are those of the effective medium theory of ASE (EMT), a model potential, to test methods for alloys.
    The minima were found by this package (``pyg-clusters generate quench``); a group is a segment of the search.

    =================  ======  ================================================================================
    subset             frames  contents
    =================  ======  ================================================================================
    ``minima``         5,915   distinct local minima
    ``forces_minima``  8,915   the same, with forces of zero, and 3,000 frames of molecular dynamics at 300 to 1,500 K
                               with their forces. Each frame started from one of the minima and is in its group
    =================  ======  ================================================================================

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å (centroid at the origin), ``y [1]`` in eV, ``idx [1]``,
    ``cluster_size [1]``, ``group [1]``; those of ``forces_minima`` also ``force [num_atoms, 3]`` in eV/Å.

    Args:
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/copper_gold_clusters``
            in the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        subset (str): One of the above.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.
    """

    NAME = "copper_gold_clusters"

    FILES: dict[str, tuple[str, ...]] = {"minima": ("minima",), "forces_minima": ("minima", "forces")}
    """Files of the subsets."""

    def __init__(
        self,
        root: str | Path | None = None,
        subset: str = "minima",
        **kwargs: Unpack[Processing],
    ):
        if subset not in self.FILES:
            raise InputError(f"CopperGoldClusters has no subset {subset!r}; choose one of {', '.join(self.FILES)}")
        self.subset = subset
        files = [f"copper_gold_{part}.extxyz" for part in self.FILES[subset]]
        joined = len(files) > 1
        minima = files[:1] if joined else []
        super().__init__(root, files, minima, target="binding_energy", group="group", forces=joined, **kwargs)
        self.num_minima = self.card.files[files[0]].frames

    def group_split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
        """:func:`~pyg_clusters.datasets.group_split` of the minima alone by :attr:`groups`.

        Every other frame is in the part of the minima of its group, or in the training part if there are none.
        """
        groups, is_minimum = self.groups, self._data.idx[torch.as_tensor(list(self.indices()))] < self.num_minima
        minima = groups[is_minimum]
        alone = group_split(minima, fractions, seed)
        val, test = (torch.isin(groups, minima[part]) for part in (alone.val, alone.test))
        return Split(*(part.nonzero().flatten() for part in (~(val | test), val, test)))
