"""The data sets that come with the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.label_arguments import Processing
from pyg_clusters.datasets.splits import Split, group_split, largest_sizes, size_split
from pyg_clusters.errors import InputError
from pyg_clusters.files import cache_folder
from pyg_clusters.frames import FrameBlock
from pyg_clusters.shipped import Card, shipped_folder


class ShippedClusters(ClusterDataset):
    """Shipped data set, whose files are compared with the checksums of its :attr:`card`.

    Args:
        root (str or Path, optional): Folder for the processed file, by default one with the name of the data set in
            the user's cache, ``pyg_clusters`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
        files (sequence of str): Names of its files.
        minima (sequence of str): Names of the files of local minima, see :class:`ClusterDataset`.
        kwargs: Further arguments of :class:`ClusterDataset`.
    """

    NAME: str
    """Name of its folder."""

    def __init__(self, root: str | Path | None, files: Sequence[str], minima: Sequence[str] = (), **kwargs: Any):
        folder = shipped_folder(self.NAME)
        self.card = Card.load(folder / "card.yaml")
        super().__init__(
            cache_folder() / self.NAME if root is None else root,
            [self.card.verify(folder, file) for file in files],
            minima=[folder / file for file in minima],
            **kwargs,
        )


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


class CopperGoldClusters(ShippedClusters):
    """Copper-gold clusters of 20 to 60 atoms of all compositions, with binding energies in eV.

    The energies are computed with effective medium theory (EMT) as implemented in ASE, a model potential. The data set
    is intended for testing methods for alloys. The minima were generated by this package (``pyg-clusters generate
    quench``); a group is a segment of the search.

    =================  ======  ================================================================================
    subset             frames  contents
    =================  ======  ================================================================================
    ``minima``         5,915   distinct local minima
    ``forces_minima``  8,915   these minima, with zero forces, and 3,000 frames of molecular dynamics at 300 to 1,500 K
                               with forces; each frame starts from one of the minima and belongs to its group
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

    def __init__(self, root: str | Path | None = None, subset: str = "minima", **kwargs: Unpack[Processing]):
        if subset not in self.FILES:
            raise InputError(f"CopperGoldClusters has no subset {subset!r}; choose one of {', '.join(self.FILES)}")
        self.subset = subset
        files = [f"copper_gold_{part}.extxyz" for part in self.FILES[subset]]
        joined = len(files) > 1
        minima = files[:1] if joined else []
        super().__init__(root, files, minima, target="binding_energy", group="group", forces=joined, **kwargs)
        self.num_minima = self.card.files[files[0]].frames

    def group_split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
        """Split the minima by :attr:`groups` with :func:`~pyg_clusters.datasets.group_split`.

        The other frames are assigned to the part of the minima of their group, or to the training set if their group
        has no minima.
        """
        groups, is_minimum = self.groups, self._of_clusters("idx") < self.num_minima
        minima = groups[is_minimum]
        alone = group_split(minima, fractions, seed)
        val, test = (torch.isin(groups, minima[part]) for part in (alone.val, alone.test))
        return Split(*(part.nonzero().flatten() for part in (~(val | test), val, test)))


POPULATIONS: tuple[str, ...] = (
    *("1S", "2S", "2PX", "2PY", "2PZ", "3S", "3PX", "3PY", "3PZ", "4S", "4PX", "4PY", "4PZ"),
    *("5DXX", "5DYY", "5DZZ", "5DXY", "5DXZ", "5DYZ"),
)
"""Names of the basis functions, in the order of the columns of ``populations`` (Kaneko et al. 2023)."""


class SodiumShielding(ShippedClusters):
    r"""Random and relaxed sodium clusters with the 23Na shielding of every atom in ppm, generated as in `Kaneko et al.
    2023 <https://doi.org/10.20517/jmi.2022.39>`_.

    The level of theory is closed-shell B3LYP/6-31G(d) with GIAOs. Most clusters were generated by S-BLDA and not
    relaxed (select them with :class:`UnrelaxedOnly`). Most were preselected by a cheap stability test, which may bias
    the sample. **The data set is small; the paper has 2,000 clusters**; see :attr:`card` for the numbers. The files are
    shipped with the package (CC-BY-4.0) and verified against the checksums of their card.

    =============  =================================================================================
    subset         contents
    =============  =================================================================================
    ``stable``     14 to 22 atoms, with a stable closed-shell solution (the filter of the paper);
                   shieldings of 580 ± 40 ppm with a tail to low values. Use this for training.
    ``large``      24 to 40 atoms, with the same filter. The paper trains on up to 26 atoms,
                   validates on 28 and 30, and tests on 40.
    ``all_sizes``  ``stable`` and ``large``, as needed by :meth:`paper_split`.
    ``unstable``   Triplet-unstable clusters; their shieldings are lower, with twice the spread.
    =============  =================================================================================

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å (centroid at the origin), ``y [num_atoms]`` in ppm,
    ``populations [num_atoms, 19]`` in electrons (names in :data:`POPULATIONS`), ``tensor [num_atoms, 9]`` in ppm (row
    by row), ``energy [1]`` in eV (total), ``lambda_triplet [1]`` in eV (lowest eigenvalue of the triplet stability
    matrix, positive where stable), ``s2 [1]`` (spin contamination :math:`\langle S^2 \rangle`), ``homo_lumo_gap [1]``
    in eV, ``relaxed [1]`` (0: as generated; 1: relaxed with the Gupta potential or GFN1-xTB), ``idx [1]``,
    ``cluster_size [1]``, ``group [1]``. A group contains a random cluster and its relaxed structures; split by group
    with :func:`group_split` or :func:`fold_split`.

    The spin contamination :math:`\langle S^2 \rangle` is that of the broken-symmetry singlet. It is zero if the closed
    shell is stable (``lambda_triplet`` measures the margin), and NaN if it was not computed for an unstable one.

    Args:
        root (str or Path, optional): Folder for the processed file, by default ``pyg_clusters/sodium_shielding`` in
            the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``).
        subset (str): One of the above.
        kwargs: ``transform``, ``pre_transform``, ``pre_filter`` and ``force_reload`` of :class:`ClusterDataset`.

    Example:
        >>> dataset = SodiumShielding()
        >>> dataset[0].y.shape, dataset[0].populations.shape, dataset[0].tensor.shape
        (torch.Size([14]), torch.Size([14, 19]), torch.Size([14, 9]))
        >>> dataset[0].y[:2]
        tensor([576.3426, 579.5763])
    """

    NAME = "sodium_shielding"

    SUBSETS: dict[str, tuple[str, ...]] = {
        "stable": ("sodium_shielding.extxyz",),
        "large": ("sodium_shielding_large.extxyz",),
        "all_sizes": ("sodium_shielding.extxyz", "sodium_shielding_large.extxyz"),
        "unstable": ("sodium_shielding_unstable.extxyz",),
    }
    """The subsets and their files."""

    def __init__(self, root: str | Path | None = None, subset: str = "stable", **kwargs: Unpack[Processing]):
        if subset not in self.SUBSETS:
            raise InputError(f"SodiumShielding has no subset {subset!r}; choose one of {', '.join(self.SUBSETS)}")
        self.subset = subset
        super().__init__(
            root,
            self.SUBSETS[subset],
            target="nmr_shielding",
            per_atom=True,
            group="seed",
            keep=("energy", "lambda_triplet", "s2", "homo_lumo_gap", "relaxed"),
            keep_atoms={"gop": "populations", "nmr_tensor": "tensor"},
            **kwargs,
        )

    def paper_split(self, seed: int = 0) -> Split:
        """Split as in the paper: train on 14 to 26 atoms, validate on 28 and 30, test on 40.

        For a subset without these sizes, the test set consists of the largest sizes (as many as needed for ten
        clusters), and a random tenth of the other clusters is the validation set.

        Args:
            seed: Seed of the random validation set.
        """
        sizes = self.sizes.numpy()
        parts = [np.flatnonzero(chosen) for chosen in (sizes <= 26, np.isin(sizes, [28, 30]), sizes == 40)]
        if all(part.size for part in parts):
            return Split(*(torch.from_numpy(part) for part in parts))
        return size_split(sizes, largest_sizes(sizes), seed=seed)

    def _groups_of(self, block: FrameBlock) -> np.ndarray:
        # Seeds are unique only among clusters of the same size.
        seeds = block.properties["seed"]
        return np.array([f"Na{size}-{seed}" for size, seed in zip(block.sizes, seeds, strict=True)])


class UnrelaxedOnly:
    """Filter that keeps the unrelaxed clusters of :class:`SodiumShielding`; pass it as ``pre_filter``.

    Kaneko et al. 2023 train on unrelaxed random clusters only.

    Example:
        >>> from pyg_clusters.datasets import SodiumShielding
        >>> dataset = SodiumShielding(pre_filter=UnrelaxedOnly())
        >>> int(dataset._data.relaxed.sum())
        0
    """

    def __call__(self, cluster: Data) -> bool:
        if "relaxed" not in cluster:
            raise InputError(
                "UnrelaxedOnly selects clusters of SodiumShielding only; for your own shieldings use a recipe of "
                "pyg-clusters new-recipe, or omit the filter (--data.dataset.pre_filter null)"
            )
        return not cluster.relaxed.any()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}()"
