"""Last-layer posterior of a single model: a Gaussian in closed form."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import one_cluster, sum_over_clusters
from pyg_clusters.models.dart import DART

CLUSTERS_AT_ONCE: int = 64
"""Clusters whose features are computed together."""


class LastLayerPosterior(nn.Module):
    r"""A :class:`DART` whose last layer has a Gaussian posterior instead of single weights.

    The energy is linear in the sums over the cluster of the last hidden features and of ones,
    :math:`\boldsymbol\phi = (\sum_i \mathbf{h}_i, N)`. With errors of variance :math:`\sigma^2 N` and a flat prior,
    Bayesian linear regression on the training set (Bishop, *Pattern recognition and machine learning*, 2006, section
    3.3) gives the covariance of the weights and with it the spread of an energy,

    .. math::
        \Sigma = \sigma^2 \Big(\sum_k \boldsymbol\phi_k \boldsymbol\phi_k^T / N_k\Big)^{-1}, \qquad
        s = \sqrt{\boldsymbol\phi^T \Sigma\, \boldsymbol\phi}.

    The energies stay those of the model. The spread is large where the features lie in a direction that the training
    set does not have; what the hidden layers do not tell apart is not in it.

    Args:
        model (DART): A trained model.
        covariance (Tensor or sequence): Covariance of the weights ``[features + 1, features + 1]`` in eV².

    Raises:
        InputError: If the model has no such features.
    """

    covariance: Tensor

    def __init__(self, model: nn.Module, covariance: Tensor | Sequence[Sequence[float]]):
        super().__init__()
        if not isinstance(model, DART):
            raise InputError(
                f"a posterior of the last layer is for DART, not {type(model).__name__}; train an ensemble"
            )
        self.model = model
        self.register_buffer("covariance", torch.as_tensor(covariance, dtype=torch.double))
        self.domain = model.domain

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Energies ``[num_graphs]`` in eV, those of the model."""
        return self.model(z, pos, batch)

    def mean_and_spread(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energies and their standard deviations ``[num_graphs]`` in eV."""
        batch = one_cluster(pos) if batch is None else batch
        atoms = self.model.energies_and_features(z, pos, batch)
        sums = _sums(atoms.features, batch)
        variance = ((sums @ self.covariance) * sums).sum(1)
        energy = sum_over_clusters(atoms.energy, batch)
        return energy, variance.clamp(min=0.0).sqrt().to(energy.dtype)

    def atomic_energies(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV, those of the model."""
        return self.model.atomic_energies(z, pos, batch)

    def features(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Features of the atoms, those of the model."""
        return self.model.features(z, pos, batch)

    @classmethod
    def fit(cls, model: nn.Module, z: Tensor, pos: Tensor, ptr: Tensor, noise: float) -> "LastLayerPosterior":
        """The posterior of a trained model on its training set.

        Args:
            model: The model.
            z: Atomic numbers ``[num_atoms]``.
            pos: Positions ``[num_atoms, 3]`` in Å.
            ptr: Offsets of the clusters ``[num_graphs + 1]``.
            noise: Standard deviation σ of the errors in eV, for a cluster of one atom.
        """
        return cls.fit_blocks(model, [(z, pos, ptr)], noise)

    @classmethod
    @torch.no_grad()
    def fit_blocks(
        cls, model: nn.Module, blocks: Iterable[tuple[Tensor, Tensor, Tensor]], noise: float
    ) -> "LastLayerPosterior":
        """As :meth:`fit`, on a training set of which no more than a block is held at a time.

        Args:
            model: The model.
            blocks: ``z``, ``pos`` and ``ptr`` of each.
            noise: Standard deviation σ of the errors in eV, for a cluster of one atom.
        """
        posterior = cls(model, torch.zeros(0, 0))
        precision: Tensor | float = 0.0
        for z, pos, ptr in blocks:
            for first in range(0, ptr.numel() - 1, CLUSTERS_AT_ONCE):
                ends = ptr[first : first + CLUSTERS_AT_ONCE + 1]
                atoms = slice(int(ends[0]), int(ends[-1]))
                sizes = ends.diff()
                batch = torch.repeat_interleave(sizes)
                sums = _sums(posterior.model.features(z[atoms], pos[atoms], batch), batch)
                precision = precision + (sums / sizes[:, None]).T @ sums
        scale = torch.as_tensor(precision).diagonal().clamp(min=1e-12).rsqrt()  # unit diagonal, for the inverse
        scaled = torch.as_tensor(precision) * scale[:, None] * scale
        inverse = torch.linalg.pinv(scaled, hermitian=True, rtol=1e-10)
        posterior.covariance = noise**2 * inverse * scale[:, None] * scale
        return posterior


def _sums(features: Tensor, batch: Tensor) -> Tensor:
    """Sums over the clusters of features and of ones, ``[num_graphs, features + 1]``, in double precision."""
    ones = torch.ones_like(features[:, :1])
    return sum_over_clusters(torch.cat([features, ones], dim=1).double(), batch)
