"""Data sets and their splits."""

from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.gnc import GNC
from pyg_clusters.datasets.on_disk import OnDiskClusters
from pyg_clusters.datasets.published_descriptors import PublishedDescriptors
from pyg_clusters.datasets.shipped_clusters import (
    POPULATIONS,
    CopperGoldClusters,
    GalliumClusters,
    SodiumShielding,
    UnrelaxedOnly,
)
from pyg_clusters.datasets.splits import Split, fold_split, group_split, largest_sizes, random_split, size_split
from pyg_clusters.shipped import Card

__all__ = [
    "GNC",
    "POPULATIONS",
    "Card",
    "ClusterDataset",
    "CopperGoldClusters",
    "GalliumClusters",
    "OnDiskClusters",
    "PublishedDescriptors",
    "SodiumShielding",
    "Split",
    "UnrelaxedOnly",
    "fold_split",
    "group_split",
    "largest_sizes",
    "random_split",
    "size_split",
]
