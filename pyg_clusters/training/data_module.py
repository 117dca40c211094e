"""Data set, split and loaders of a training, for Lightning."""

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from pyg_clusters.datasets.batches import EpochSampler
from pyg_clusters.datasets.training_data import TrainingData


class ClusterDataModule(TrainingData, pl.LightningDataModule):
    """Data set and split of a training, and loaders that divide each batch over the processes.

    Arguments are those of :class:`~pyg_clusters.datasets.training_data.TrainingData`.
    """

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.split.val, 4 * self.batch_size, shuffle=False)

    def _loader(self, clusters: Tensor, batch_size: int, shuffle: bool) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sizes = None if self.max_pairs is None else self.dataset.sizes[clusters]
        sampler = EpochSampler(
            clusters, batch_size, shuffle, self.shuffle_seed, rank, world_size, sizes, self.max_pairs
        )
        return DataLoader(
            self.batches,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
