"""The shipped shieldings of sodium clusters."""

from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch_geometric.data import Data

from pyg_clusters.datasets.card import Processing, ShippedClusters
from pyg_clusters.datasets.splits import Split, largest_sizes, size_split
from pyg_clusters.errors import InputError
from pyg_clusters.frames import FrameBlock

POPULATIONS: tuple[str, ...] = (
    *("1S", "2S", "2PX", "2PY", "2PZ", "3S", "3PX", "3PY", "3PZ", "4S", "4PX", "4PY", "4PZ"),
    *("5DXX", "5DYY", "5DZZ", "5DXY", "5DXZ", "5DYZ"),
)
"""The basis functions whose populations are given, in the order of their columns (Kaneko et al. 2023)."""


class SodiumShielding(ShippedClusters):
    r"""Random sodium clusters with the 23Na shielding of every atom in ppm, in the manner of `Kaneko et al. 2023
    <https://doi.org/10.20517/jmi.2022.39>`_.

    B3LYP/6-31G(d) with GIAOs, closed shell. Most clusters were grown by S-BLDA and not relaxed (:class:`UnrelaxedOnly`
    keeps those), and most were chosen by a cheap stability filter before the calculation, which may bias them. **Less
    than two hundred clusters stand for the paper's 2,000**: :attr:`card` counts them. The files come with the package
    (CC-BY-4.0) and are compared with the checksums of their card.

    =============  =================================================================================
    subset         contents
    =============  =================================================================================
    ``stable``     14 to 22 atoms, with a stable closed-shell solution (the paper's filter):
                   shieldings of 580 ± 40 ppm with a tail to the left. Train on these.
    ``large``      The same with 24 to 40 atoms. The paper trains on up to 26, validates on 28
                   and 30, and tests on 40.
    ``all_sizes``  Both: what :meth:`paper_split` needs.
    ``unstable``   Triplet-unstable: lower and twice as wide. To study apart.
    =============  =================================================================================

    A cluster has ``z [num_atoms]``, ``pos [num_atoms, 3]`` in Å (centroid at the origin), ``y [num_atoms]`` in ppm,
    ``populations [num_atoms, 19]`` in electrons (named by :data:`POPULATIONS`), ``tensor [num_atoms, 9]`` in ppm (row
    by row), ``energy [1]`` in eV (total), ``lambda_triplet [1]`` in eV (lowest eigenvalue of the triplet stability
    matrix, positive where stable), ``s2 [1]`` (spin contamination :math:`\langle S^2 \rangle`), ``homo_lumo_gap [1]``
    in eV, ``relaxed [1]`` (0: as it was grown; 1: relaxed with the Gupta potential or GFN1-xTB), ``idx [1]``,
    ``cluster_size [1]``, ``group [1]``. A group holds the clusters made from one random cluster, relaxed or not:
    :func:`group_split` and :func:`fold_split` by groups split by cluster.

    The spin contamination :math:`\langle S^2 \rangle` is that of the broken-symmetry singlet, which falls back to the
    closed shell where that is stable: zero there, and ``lambda_triplet`` tells how safely. Elsewhere it is
    not-a-number if it was not computed.

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
        """The paper's split: train on 14 to 26 atoms, validate on 28 and 30, test on 40.

        A subset without those sizes is tested on its largest ones, as many as it takes to have ten clusters, and
        trained on the smaller ones, a tenth of which validates.

        Args:
            seed: Seed of the validation set, where it is drawn.
        """
        sizes = self.sizes.numpy()
        parts = [np.flatnonzero(chosen) for chosen in (sizes <= 26, np.isin(sizes, [28, 30]), sizes == 40)]
        if all(part.size for part in parts):
            return Split(*(torch.from_numpy(part) for part in parts))
        return size_split(sizes, largest_sizes(sizes), seed=seed)

    def _groups_of(self, block: FrameBlock) -> np.ndarray:
        # Seeds are counted for each size separately.
        seeds = block.properties["seed"]
        return np.array([f"Na{size}-{seed}" for size, seed in zip(block.sizes, seeds, strict=True)])


class UnrelaxedOnly:
    """Keeps the random clusters of :class:`SodiumShielding` and leaves out those that were relaxed with a potential.

    Kaneko et al. 2023 train on random clusters alone. To be given as ``pre_filter``.

    Example:
        >>> from pyg_clusters.datasets import SodiumShielding
        >>> dataset = SodiumShielding(pre_filter=UnrelaxedOnly())
        >>> int(dataset._data.relaxed.sum())
        0
    """

    def __call__(self, cluster: Data) -> bool:
        return not cluster.relaxed.any()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}()"
