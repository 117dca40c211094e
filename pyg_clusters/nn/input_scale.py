"""Standardised inputs of a network."""

import torch
from torch import Tensor, nn


class InputScale(nn.Module):
    r"""Inputs less their mean and over their standard deviation, :math:`(x - \mu) / \max(\sigma, f \sigma_{max})`.

    Mean and standard deviation are buffers, taken from the first batch that is seen in training mode (some 1,600 atoms
    for 32 clusters) or from :meth:`fit`, and stay as they are from then on. Until then inputs pass unchanged.

    Inputs that hardly vary are not blown up to unit variance: a rare surrounding (atoms of a hot frame that come close)
    would be far outside of everything the network has seen.

    Args:
        num_features (int): Number of inputs.
        floor (float): Smallest standard deviation to divide by, as a share f of the largest.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, num_features: int, floor: float = 0.01):
        super().__init__()
        self.num_features = num_features
        self.floor = floor
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.reset_parameters()

    def reset_parameters(self):
        self.mean.zero_()
        self.std.fill_(1.0)
        self.fitted.fill_(False)

    @torch.no_grad()
    def fit(self, x: Tensor):
        """Takes mean and standard deviation of ``x [num_atoms, num_features]``."""
        std = x.std(dim=0, correction=0)
        largest = std.max()
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(std.clamp(min=self.floor * largest) if largest > 0 else torch.ones_like(std))
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.fitted:
            self.fit(x)
        return (x - self.mean) / self.std

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_features}, floor={self.floor})"
