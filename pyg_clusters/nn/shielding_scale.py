"""Scale and distribution that turn a network's raw numbers into shieldings."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pyg_clusters.distributions import GeneralizedLogistic
from pyg_clusters.errors import InputError


class ShieldingScale(nn.Module):
    r"""Shielding of an atom in ppm from the raw output of a network, :math:`\sigma_i = t^{-1}(m + s\, r_i)`.

    Without a transform :math:`t` is the identity. Mean m, scale s and the parameters of the transform are buffers, so
    that they are saved and moved with the model and targets stay as they are in the data set. Until :meth:`fit` sets
    them nothing is scaled.

    Args:
        transform (bool): Whether targets are made standard normal by a
            :class:`~pyg_clusters.distributions.GeneralizedLogistic` that is fitted to them.

    Shapes:
        - **input:** raw output ``[num_atoms]``
        - **output:** ``[num_atoms]`` in ppm
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, transform: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.transform = GeneralizedLogistic() if transform else None
        self.reset_parameters()

    def reset_parameters(self):
        self.mean.fill_(0.0)
        self.scale.fill_(1.0)
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic().state_dict())

    @torch.no_grad()
    def fit(self, z: Tensor, ptr: Tensor, shielding: Tensor):
        """Sets the transform, if there is one, and mean and standard deviation of the (transformed) shieldings.

        Args:
            z: Atomic numbers ``[num_atoms]``; not used, as those of :meth:`EnergyScale.fit` are.
            ptr: Offsets of the clusters ``[num_graphs + 1]``; not used either.
            shielding: ``[num_atoms]`` in ppm. Where all are equal the scale is one.

        Raises:
            InputError: If a shielding is not finite, there is none, or the distribution cannot be fitted.
        """
        values = shielding.double()
        if not values.numel() or not values.isfinite().all():
            what = "there is none" if not values.numel() else f"one is {values[~values.isfinite()][0]:g}"
            raise InputError(f"shieldings to learn from must be finite numbers: {what}; leave such clusters out")
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic.fit(values).state_dict())
            values = self.transform(values)
        deviation = values.std(correction=0)
        self.mean.copy_(values.mean())
        self.scale.copy_(deviation if deviation > 0 else torch.ones_like(deviation))

    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """As :meth:`fit`, on clusters that come in blocks, of which the shieldings alone are kept.

        Args:
            blocks: ``z``, ``ptr`` and ``shielding`` of each.
        """
        values = torch.cat([shielding for _, _, shielding in blocks])
        self.fit(values.new_zeros(0), values.new_zeros(0), values)

    def forward(self, raw: Tensor) -> Tensor:
        raw = raw.to(self.scale.dtype)  # of mixed precision, in which a shielding is known to 2 ppm only
        values = self.mean + self.scale * raw
        return values if self.transform is None else self.transform.inverse(values)

    def standardize(self, shielding: Tensor) -> Tensor:
        """Raw numbers of shieldings in ppm: the inverse of the module, for a loss on transformed values."""
        values = shielding if self.transform is None else self.transform(shielding)
        return (values - self.mean) / self.scale

    def extra_repr(self) -> str:
        return f"mean={float(self.mean):.6g}, scale={float(self.scale):.6g}"
