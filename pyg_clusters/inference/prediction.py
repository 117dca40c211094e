"""What a model says of frames."""

from dataclasses import dataclass

from torch import Tensor

from pyg_clusters.errors import InputError


@dataclass
class Prediction:
    """Predictions in the order of the input: a value per frame or per atom, as the model has it."""

    values: Tensor
    """Energies ``[num_frames]`` in eV, or shieldings ``[num_atoms]`` in ppm, the atoms of one frame after another's."""
    num_frames: int
    num_atoms: int
    model: str
    """Name of the model's class."""
    spread: Tensor | None = None
    """Standard deviations of the values, in their unit, of a model that gives them (an ensemble)."""

    @property
    def per_atom(self) -> bool:
        """Whether there is a value per atom. (Of frames of one atom both are the same.)"""
        return self.values.numel() != self.num_frames

    @property
    def energy(self) -> Tensor:
        """Energies ``[num_frames]`` in eV.

        Raises:
            InputError: If the model is one of shieldings.
        """
        return self._if("energies", self.num_frames)

    @property
    def shielding(self) -> Tensor:
        """Shieldings ``[num_atoms]`` in ppm.

        Raises:
            InputError: If the model is one of energies.
        """
        return self._if("shieldings", self.num_atoms)

    def _if(self, kind: str, number: int) -> Tensor:
        if self.values.numel() != number:
            what = "atom" if self.per_atom else "cluster"
            raise InputError(f"{self.model} gives a value per {what}: it is no model of {kind}")
        return self.values
