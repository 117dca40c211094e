"""Data sets and their splits."""

from pyg_clusters.datasets.card import Card
from pyg_clusters.datasets.cluster_dataset import ClusterDataset
from pyg_clusters.datasets.gallium import GalliumClusters
from pyg_clusters.datasets.shipped import shipped_folder
from pyg_clusters.datasets.splits import Split, group_split, random_split, size_split

__all__ = [
    "Card",
    "ClusterDataset",
    "GalliumClusters",
    "Split",
    "group_split",
    "random_split",
    "shipped_folder",
    "size_split",
]
