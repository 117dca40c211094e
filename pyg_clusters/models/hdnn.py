"""HDNN: energies of clusters from Behler-Parrinello symmetry functions."""

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.geometry import batch_to_ptr, one_cluster, sum_over_clusters
from pyg_clusters.models.training_domain import TrainingDomain
from pyg_clusters.nn.inputs import InputScale, reset_parameters
from pyg_clusters.nn.output_scale import EnergyScale
from pyg_clusters.positions import usable_positions
from pyg_clusters.transforms.symmetry_functions import SymmetryFunctions, element_numbers


class HDNN(nn.Module):
    r"""High-dimensional neural network on Behler-Parrinello symmetry functions (BPSF-HDNN), the baseline of `Modee et
    al. 2021 <https://doi.org/10.1039/d1cp02956h>`_ (section 3.1, Table 2).

    .. math::
        E = \sum_i \mathrm{MLP}_{z_i}(\mathbf{G}_i)

    with the symmetry functions :math:`\mathbf{G}_i` of :class:`~pyg_clusters.transforms.SymmetryFunctions` and a
    network 640:128:128:64:1 for each element. Activation and initialisation are those of DART: CELU with
    :math:`\alpha = 0.1`, weights from a Kaiming normal distribution of gain 1, and zero biases. The symmetry functions
    are standardised with the statistics of the first training batch (:class:`~pyg_clusters.nn.InputScale`).

    To compute the symmetry functions only once, pass ``SymmetryFunctions(...)`` with the same parameters as
    ``pre_transform`` of the data set. Otherwise they are computed from the positions at every call.

    Args:
        elements (sequence of str): Symbols of the elements, in the order of the symmetry functions.
        hidden_channels (sequence of int): Widths of the hidden layers.
        descriptor (dict, optional): Arguments of :class:`~pyg_clusters.transforms.SymmetryFunctions` that differ from
            its defaults.

    Raises:
        MissingExtra: If TorchANI is not installed (extra ``hdnn``).

    Example:
        >>> import torch
        >>> z, batch = torch.tensor([31, 31]), torch.tensor([0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.7]])
        >>> HDNN()(z, pos, batch).shape  # doctest: +SKIP
        torch.Size([1])
    """

    def __init__(
        self,
        elements: Sequence[str] = ("Ga",),
        hidden_channels: Sequence[int] = (128, 128, 64),
        descriptor: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.descriptor = dict(descriptor or {})
        known = list(signature(SymmetryFunctions).parameters)[1:]  # without the elements
        if unknown := [name for name in self.descriptor if name not in known]:
            raise InputError(f"the descriptor of HDNN has no {unknown[0]!r}; it has {', '.join(known)}")
        self.functions = SymmetryFunctions(elements, **self.descriptor)
        self.elements = self.functions.elements
        self.hidden_channels = tuple(hidden_channels)
        self.inputs = InputScale(self.functions.num_functions)
        widths = [self.functions.num_functions, *self.hidden_channels]
        self.networks = nn.ModuleDict({symbol: _network(widths) for symbol in self.elements})
        self.scale = EnergyScale()
        self.domain = TrainingDomain()
        self.reset_parameters()

    def reset_parameters(self):
        reset_parameters(self)

    def forward(
        self, z: Tensor, pos: Tensor | None, batch: Tensor | None = None, *, symmetry_functions: Tensor | None = None
    ) -> Tensor:
        """Energies of the clusters, ``[num_graphs]`` in eV.

        Args:
            z: Atomic numbers ``[num_atoms]``.
            pos: Positions ``[num_atoms, 3]`` in Å; may be ``None`` if the symmetry functions are given.
            batch: Cluster index of each atom ``[num_atoms]``, sorted; one cluster if not given.
            symmetry_functions: Symmetry functions ``[num_atoms, num_functions]``, if already computed.

        Raises:
            InputError: If the model has no network for an element.
        """
        batch = one_cluster(z) if batch is None else batch
        return sum_over_clusters(self.atomic_energies(z, pos, batch, symmetry_functions=symmetry_functions), batch)

    def atomic_energies(
        self, z: Tensor, pos: Tensor | None, batch: Tensor | None = None, *, symmetry_functions: Tensor | None = None
    ) -> Tensor:
        """Contributions of the atoms ``[num_atoms]`` in eV; the arguments are those of :meth:`forward`."""
        batch = one_cluster(z) if batch is None else batch
        self.domain.check(z)
        element = element_numbers(z, self.elements)
        pos, defect = (None, 0.0) if pos is None else usable_positions(pos, batch)
        x = symmetry_functions
        if x is None:
            if pos is None:
                raise ValueError("HDNN needs positions, or symmetry_functions")
            x = self.functions.compute(z, pos, batch_to_ptr(batch))
        if x.size(-1) != self.functions.num_functions:
            raise ValueError(
                f"got {x.size(-1)} symmetry functions per atom, but the model has {self.functions.num_functions}: "
                f"compute them with {self.functions}"
            )
        x = self.inputs(x.to(self.inputs.mean.dtype))
        raw = x.new_zeros(z.numel())
        for number, network in enumerate(self.networks.values()):
            atoms = (element == number).nonzero().flatten()
            raw = raw.index_put((atoms,), network(x[atoms]).squeeze(-1).to(raw))  # mixed precision
        return self.scale(raw + defect, z)


def _network(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.CELU(alpha=0.1)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))
