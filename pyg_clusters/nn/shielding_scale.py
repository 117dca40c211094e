"""Scaling of raw network outputs to shieldings."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pyg_clusters.distributions import GeneralizedLogistic
from pyg_clusters.errors import InputError
from pyg_clusters.nn.output_scale import MAX_ATOMIC_NUMBER, OutputScale


class ShieldingScale(OutputScale):
    r"""Shielding of an atom in ppm from the raw output of a network, :math:`\sigma_i = t^{-1}(m + o(z_i) + s\, r_i)`.

    Without a transform :math:`t` is the identity. Mean m, offsets o of the elements, scale s and the parameters of the
    transform are buffers, so they are saved and moved with the model, and the targets of the data set need not be
    changed. The offsets are the mean of each element minus m; fitted to a single element, the scale has none. Before
    :meth:`fit` raw outputs are not scaled.

    Args:
        transform (bool): Whether to transform the targets to a standard normal distribution with a
            :class:`~pyg_clusters.distributions.GeneralizedLogistic` that is fitted to them.

    Shapes:
        - **input:** raw output ``[num_atoms]``, atomic numbers ``z [num_atoms]`` (may be ``None`` if the scale was
          fitted to one element)
        - **output:** ``[num_atoms]`` in ppm

    Example:
        >>> scale = ShieldingScale()
        >>> z, shieldings = torch.tensor([13, 13, 31, 31]), torch.tensor([540.0, 560.0, 1790.0, 1810.0])
        >>> scale.fit(z, torch.tensor([0, 4]), shieldings)
        >>> scale.standardize(shieldings, z)
        tensor([-1.,  1., -1.,  1.])
    """

    mean: Tensor
    scale: Tensor
    offset: Tensor | None

    def __init__(self, transform: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", None)
        self.transform = GeneralizedLogistic() if transform else None
        self.reset_parameters()

    def reset_parameters(self):
        super().reset_parameters()
        self.mean.fill_(0.0)
        self.scale.fill_(1.0)
        self.offset = None
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic().state_dict())

    @torch.no_grad()
    def fit_blocks(self, blocks: Iterable[tuple[Tensor, Tensor, Tensor]]):
        """Fit the transform, if any, and the means and standard deviation of the (transformed) shieldings.

        The standard deviation is that from the means of the elements; if it is zero, the scale is one. The shieldings
        of all blocks are in memory together.

        Raises:
            InputError: If there is no shielding, one is not finite, or the distribution cannot be fitted.
        """
        parts = [(z, shielding) for z, _, shielding in blocks]
        z, values = torch.cat([z for z, _ in parts]), torch.cat([shielding for _, shielding in parts]).double()
        if not values.numel() or not values.isfinite().all():
            what = "there is none" if not values.numel() else f"one is {values[~values.isfinite()][0]:g}"
            raise InputError(f"training shieldings must be finite numbers: {what}; leave such clusters out")
        if self.transform is not None:
            self.transform.load_state_dict(GeneralizedLogistic.fit(values).state_dict())
            values = self.transform(values)
        self.is_fitted = True
        mean, self.offset = values.mean(), None
        self.mean.copy_(mean)
        if len(elements := z.unique().tolist()) > 1:
            offset = values.new_zeros(MAX_ATOMIC_NUMBER + 1)
            for number in elements:
                offset[number] = values[z == number].mean() - mean
            values, self.offset = values - offset[z], offset.to(self.mean)
        deviation = values.std(correction=0)
        self.scale.copy_(deviation if deviation > 0 else torch.ones_like(deviation))

    def forward(self, raw: Tensor, z: Tensor | None = None) -> Tensor:
        self.warn_unfitted()
        raw = raw.to(self.scale.dtype)  # mixed precision would round shieldings to 2 ppm
        values = self._means(z) + self.scale * raw
        return values if self.transform is None else self.transform.inverse(values)

    def standardize(self, shielding: Tensor, z: Tensor | None = None) -> Tensor:
        """Raw outputs that correspond to shieldings in ppm, for a loss on transformed values."""
        values = shielding if self.transform is None else self.transform(shielding)
        return (values - self._means(z)) / self.scale

    def _means(self, z: Tensor | None) -> Tensor:
        """Mean of the (transformed) shieldings, of each element ``[num_atoms]`` if the scale was fitted to several."""
        if self.offset is None:
            return self.mean
        if z is None:
            raise InputError("atomic numbers z are needed: the model was trained on several elements")
        return self.mean + self.offset[z]

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args):
        self.offset = self.mean.new_empty(MAX_ATOMIC_NUMBER + 1) if f"{prefix}offset" in state_dict else None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"mean={float(self.mean):.6g}, scale={float(self.scale):.6g}"
