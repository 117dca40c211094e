"""Inputs of networks: element indices, learned element channels, standardised features; and initial weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import is_traced
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, OutputScale


class ElementIndex(nn.Module):
    """Map from atomic numbers to indices into the elements of a model.

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
        if is_traced():  # unknown elements get an index out of range, which raises an error when used
            return torch.where(index < 0, len(self.elements), index)
        if bool((index < 0).any()):
            unknown = sorted(set(z[index < 0].tolist()))
            raise InputError(f"the model has the elements {list(self.elements)}, not {unknown} (atomic numbers)")
        return index

    def one_hot(self, z: Tensor) -> Tensor:
        """One-hot encoded element of each atom, ``[num_atoms, num_elements]`` (long)."""
        return one_hot(self(z), len(self.elements))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({list(self.elements)})"


class ElementChannels(nn.Module):
    r"""Learned weights of the elements, with which sums over neighbours distinguish elements.

    Each sum over the neighbours of an atom is computed once without weights and once for each channel c, with the
    weight :math:`a_c(z_j)` of the element of the neighbour. The cost of the sums grows with the number of channels, not
    with the number of elements. The number of channels is limited to the number of elements minus one, which is as
    expressive as one sum per element.

    The weights are initialised to discrete cosines over the elements in their order, orthogonal to a constant. Two
    elements have the weights 1 and -1.

    Args:
        elements (sequence of int): Atomic numbers.
        channels (int): Maximum number of channels.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``
        - **output:** ``[num_atoms, num_channels]``; there are no channels for one element

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
            self.register_buffer("weight", weight, persistent=False)  # empty, so not in the state dict
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

    Mean and standard deviation are buffers. They are computed once, from the first batch in training mode (about 1,600
    atoms for 32 clusters) or by :meth:`fit`. Before that, inputs are not changed.

    Inputs that hardly vary are not scaled to unit variance, because rare environments (close atoms in a hot frame)
    would then lie far outside the range of the training inputs.

    Args:
        num_features (int): Number of inputs.
        floor (float): Smallest standard deviation to divide by, as a fraction f of the largest.
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
    """Reset a model like the published DART: Kaiming normal weights with a = 1, and zero biases."""
    for module in model.modules():
        if isinstance(module, ElementChannels | InputScale | OutputScale):
            module.reset_parameters()
            continue
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, Tensor) and isinstance(bias, Tensor):
            nn.init.kaiming_normal_(weight, a=1.0)
            nn.init.zeros_(bias)
