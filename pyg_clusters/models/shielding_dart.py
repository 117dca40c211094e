"""ShieldingDART: SmoothDART with a shielding per atom."""

from collections.abc import Sequence

from torch import Tensor

from pyg_clusters.models.smooth_dart import SmoothDART
from pyg_clusters.nn.output_scale import ShieldingScale

SODIUM_SHELLS: tuple[float, float] = (4.5, 7.7)
"""Shell radii of sodium in Å, from the minima of the pair-distance distribution of random clusters."""


class ShieldingDART(SmoothDART):
    r"""The network of :class:`SmoothDART` with a shielding of each atom in place of its share in the energy.

    .. math::
        \sigma_i = t^{-1}\Big(m + s\, \mathrm{MLP}_{int}\big(\mathrm{MLP}_f(\mathbf{x}_i) + \sum_s \sum_{j \ne i}
        w_s(d_{ij})\, \mathrm{MLP}_s(\mathbf{x}_j)\big)\Big)

    with the mean m, the standard deviation s and, if asked for, the transform t of the shieldings of the training set
    (:class:`~pyg_clusters.nn.ShieldingScale`). Unlike :class:`NodeSchNet` it sees directions, and all atoms of the
    cluster: it is the more accurate of the two at the sizes of its training set, and the less accurate beyond them.

    Args:
        radii (sequence of float): Radii in Å of the shells that are summed over; by default the minima of the
            pair-distance distribution of random sodium clusters.
        width (float): Width of a boundary between shells in Å, over which a weight goes from 0 to 1.
        descriptor_radii (sequence of float, optional): Radii in Å of the descriptor; by default those of the sums.
        degree (int): Largest degree of the spherical harmonics, 0 to 8; 0 leaves directions out.
        hidden_channels (int): Width of the shell networks.
        interaction_channels (sequence of int): Widths of the hidden layers of the interaction network.
        rounds (int): Rounds of shell-wise sums.
        act (str): Activation function.
        elements (sequence of int, optional): Atomic numbers of the elements that are told apart.
        element_channels (int): Largest number of channels of the elements.
        outermost_shell (bool): Whether atoms beyond the last radius count.
        transform (bool): Whether the network gives standard normal values, which the inverse of a generalised logistic
            distribution turns into shieldings.

    Shapes:
        - **input:** atomic numbers ``z [num_atoms]``, positions ``pos [num_atoms, 3]`` in Å, cluster numbers ``batch
          [num_atoms]`` (sorted)
        - **output:** shieldings ``[num_atoms]`` in ppm

    Example:
        >>> import torch
        >>> model = ShieldingDART()
        >>> z, batch = torch.tensor([11, 11, 11]), torch.tensor([0, 0, 0])
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.5], [0.0, 3.0, 1.7]])
        >>> model.scale.fit(z, torch.tensor([0, 3]), torch.tensor([590.0, 600.0, 620.0]))
        >>> model(z, pos, batch).shape
        torch.Size([3])
    """

    atomic_energies = None  # type: ignore[assignment]  # not a model of energies

    def __init__(
        self,
        radii: Sequence[float] = SODIUM_SHELLS,
        width: float = 1.2,
        descriptor_radii: Sequence[float] | None = None,
        degree: int = 2,
        hidden_channels: int = 64,
        interaction_channels: Sequence[int] = (64, 32),
        rounds: int = 1,
        act: str = "silu",
        elements: Sequence[int] | None = None,
        element_channels: int = 2,
        outermost_shell: bool = True,
        transform: bool = False,
    ):
        super().__init__(
            radii,
            width,
            descriptor_radii,
            degree,
            hidden_channels,
            interaction_channels,
            rounds,
            act,
            elements,
            element_channels,
            outermost_shell,
        )
        self.transform = transform
        self.scale = ShieldingScale(transform)

    def forward(self, z: Tensor | None, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Shieldings of the atoms, ``[num_atoms]`` in ppm.

        Args:
            z: Atomic numbers ``[num_atoms]``; may be ``None`` for a model of one element.
            pos: Positions ``[num_atoms, 3]`` in Å.
            batch: Cluster of each atom ``[num_atoms]``, sorted; one cluster if not given.
        """
        return self.atomic_values(z, pos, batch)

    def scaled(self, raw: Tensor, z: Tensor | None) -> Tensor:
        """Numbers of the network ``[num_atoms]`` in ppm."""
        return self.scale(raw)
