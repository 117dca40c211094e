"""Inputs of networks (elements as indices or learned numbers, standardised features), and initial weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import is_traced
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, OutputScale


class ElementIndex(nn.Module):
    """Index of an element among those of a model.

    Args:
        elements (sequence of int): Atomic numbers.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``
        - **output:** ``[num_atoms]`` (long)

    Example:
        >>> ElementIndex((29, 79))(torch.tensor([29, 79])).tolist()
        [0, 1]
    """

    index_of: Tensor

    def __init__(self, elements: Sequence[int]):
        super().__init__()
        self.elements = tuple(int(number) for number in elements)
        known = all(0 < number <= MAX_ATOMIC_NUMBER for number in self.elements)
        if not self.elements or not known or len(set(self.elements)) < len(self.elements):
            raise InputError(f"elements must be different atomic numbers, got {list(self.elements)}")
        index_of = torch.full((MAX_ATOMIC_NUMBER + 1,), -1)
        index_of[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("index_of", index_of, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        index = self.index_of[z]
        if is_traced():  # of an unknown element an index that raises where it is used
            return torch.where(index < 0, len(self.elements), index)
        if bool((index < 0).any()):
            unknown = sorted(set(z[index < 0].tolist()))
            raise InputError(f"the model has the elements {list(self.elements)}, not {unknown} (atomic numbers)")
        return index

    def one_hot(self, z: Tensor) -> Tensor:
        """The element of each atom, ``[num_atoms, num_elements]`` (long) of ones and zeros."""
        return one_hot(self(z), len(self.elements))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({list(self.elements)})"


class ElementChannels(nn.Module):
    r"""Learned map of elements to a few numbers, by which sums over neighbours tell elements apart.

    A sum over the neighbours of an atom is taken once for all of them alike and once for each channel, with the weight
    :math:`a_c(z_j)` of the element: the cost of the sums grows with the number of channels, not of elements. One
    channel fewer than there are elements is as much as a sum for each element; more are not made.

    The map starts as a discrete cosine, orthogonal to a constant, over the elements in their order: two elements
    have the weights 1 and -1.

    Args:
        elements (sequence of int): Atomic numbers.
        channels (int): Largest number of channels.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``
        - **output:** ``[num_atoms, num_channels]``, none for one element

    Example:
        >>> ElementChannels((29, 79), channels=2)(torch.tensor([29, 79])).round().tolist()
        [[1.0], [-1.0]]
    """

    weight: Tensor

    def __init__(self, elements: Sequence[int], channels: int):
        super().__init__()
        self.index = ElementIndex(elements)
        if channels < 1:
            raise InputError(f"the number of element channels must be at least 1, got {channels}")
        self.num_channels = min(channels, len(self.index.elements) - 1)
        weight = torch.empty(len(self.index.elements), self.num_channels)
        if self.num_channels:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)  # a model of one element has none in its file
        self.reset_parameters()

    def reset_parameters(self):
        num = self.weight.size(0)
        angle = math.pi / num * torch.outer(torch.arange(num) + 0.5, torch.arange(self.num_channels) + 1.0)
        with torch.no_grad():
            self.weight.copy_(math.sqrt(2) * angle.cos())

    def forward(self, z: Tensor) -> Tensor:
        return self.weight[self.index(z)]

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({list(self.index.elements)}, {self.num_channels})"


class InputScale(nn.Module):
    r"""Inputs minus their mean, divided by their standard deviation: :math:`(x - \mu) / \max(\sigma, f \sigma_{max})`.

    Mean and standard deviation are buffers, taken from the first batch that is seen in training mode (some 1,600 atoms
    for 32 clusters) or from :meth:`fit`, and stay as they are from then on. Until then inputs pass unchanged.

    Inputs that hardly vary are not scaled to unit variance, which would put rare environments (close atoms in a hot
    frame) far outside the range that the network has seen.

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
        """Set mean and standard deviation from ``x [num_atoms, num_features]``."""
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


def reset_parameters(model: nn.Module):
    """Reset a model as the published DART starts: Kaiming normal weights with a = 1, and zero biases."""
    for module in model.modules():
        if isinstance(module, ElementChannels | InputScale | OutputScale):
            module.reset_parameters()
            continue
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, Tensor) and isinstance(bias, Tensor):
            nn.init.kaiming_normal_(weight, a=1.0)
            nn.init.zeros_(bias)
