"""Shieldings of the atoms of many clusters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from ase import Atoms
from torch import Tensor

from pyg_clusters.errors import InputError
from pyg_clusters.inference.predictor import Array, Predictor, _check_finite, _flat_tensors


@dataclass
class ShieldingPrediction:
    """Predictions in the order of the input."""

    shielding: Tensor
    """Shieldings ``[num_atoms]`` in ppm, the atoms of one frame after those of the other."""
    spread: Tensor | None = None
    """Standard deviations ``[num_atoms]`` in ppm, of a model that gives them (an ensemble)."""


class ShieldingPredictor(Predictor):
    """Predicts the shieldings of the atoms of many frames at once; made as a :class:`Predictor` is.

    Example:
        >>> import torch
        >>> from pyg_clusters.models import NodeSchNet
        >>> z, pos = torch.full((5, 4), 11), torch.rand(5, 4, 3) * 9
        >>> ShieldingPredictor(NodeSchNet())(z, pos).shielding.shape
        torch.Size([20])
    """

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        z: Array | Sequence[Atoms],
        pos: Array | None = None,
        ptr: Array | None = None,
        values: Mapping[str, Array] | None = None,
    ) -> ShieldingPrediction:
        """Predicts frames given as flat arrays, as arrays of one size, or as a list of ASE ``Atoms``.

        Args:
            z: Atomic numbers ``[num_atoms]`` with ``ptr``, ``[num_frames, num_atoms]`` without; or the list.
            pos: Positions in Å, ``[num_atoms, 3]`` or ``[num_frames, num_atoms, 3]``.
            ptr: Offsets of the frames ``[num_frames + 1]``.
            values: Arrays of atoms ``[num_atoms, ...]`` by name that the model takes besides (``populations``).

        Raises:
            ValueError: If the shapes do not belong together.
            InputError: If an element occurs that the model was not trained on, a position is not finite, or the model
                does not return a value per atom.
        """
        z, pos, ptr = _flat_tensors(z, pos, ptr)
        _check_finite(pos, ptr)
        self._check_elements(z)
        extra = {name: torch.as_tensor(value) for name, value in (values or {}).items()}
        shielding = self._room(z.numel())
        for frames, size in self._batches(ptr):
            atoms = (ptr[frames][:, None] + torch.arange(size)).flatten()
            positions = pos[atoms].view(-1, size, 3)
            positions = (positions - positions.mean(dim=1, keepdim=True)).to(self.device, self.dtype)
            numbers = z[atoms].view(-1, size).to(self.device)
            chosen = {name: value[atoms].to(self.device) for name, value in extra.items()}
            found = self._shieldings(numbers, positions, chosen)
            if found.shape != shielding[atoms].shape:
                name, shape = type(self.model).__name__, list(found.shape)
                raise InputError(f"{name} returns {shape} for {atoms.numel()} atoms: it is no model of shieldings")
            shielding[atoms] = found.to("cpu", self.dtype)
        return ShieldingPrediction(*shielding.unbind(1)) if self.gives_spread else ShieldingPrediction(shielding)

    def _shieldings(self, z: Tensor, pos: Tensor, extra: Mapping[str, Tensor]) -> Tensor:
        if not extra:
            return self._energies(z, pos)  # the call of the model, with its graph if it needs one
        batch = torch.arange(z.size(0), device=z.device).repeat_interleave(z.size(1))
        return self._call(z.flatten(), pos.flatten(0, 1), batch, **extra)
