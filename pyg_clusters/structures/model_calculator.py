"""Forces of any energy, and ASE calculators of potentials and models."""

import warnings
from collections.abc import Callable

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.frames import ExtrapolationWarning
from pyg_clusters.frames.electronic_state import neutral_problem
from pyg_clusters.frames.join import join_atoms
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.contract import HasAtomicEnergies, HasSpread, element_problem
from pyg_clusters.models.training_domain import domain_of, geometry_range_of
from pyg_clusters.structures.gupta import Gupta

EnergyFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``energy(z, pos, batch)``: atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and the cluster of each
atom ``[num_atoms]`` to the energies ``[num_graphs]`` in eV, differentiable with respect to the positions."""


def energy_and_forces(energy: EnergyFunction, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å of clusters.

    Args:
        energy: A potential or a model, which computes in the precision of its weights.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å; energies and forces have their precision. (Energies of a model with
            reference energies are in double precision in any case.)
        batch: Cluster of each atom ``[num_atoms]``, sorted.

    Raises:
        InputError: If the energy is no differentiable function of the positions.
    """
    weight = next(energy.parameters(), pos) if isinstance(energy, nn.Module) else pos
    with torch.enable_grad():
        moved = pos.detach().requires_grad_()
        energies = energy(z, moved.to(weight.dtype), batch)
        energies = energies.to(torch.promote_types(energies.dtype, pos.dtype))
        (gradient,) = torch.autograd.grad(energies.sum(), moved, allow_unused=True)
    if gradient is None:
        name = type(energy).__name__
        raise InputError(f"{name} has no forces: its energy is no smooth function of the positions; SmoothDART has")
    energies = energies.detach()
    return energies, torch.where(energies.isnan()[batch, None], torch.nan, -gradient)


TIMES_LARGER: int = 10
"""A model that sums over all atoms is refused for clusters so many times larger than those that it was trained on."""


class ModelCalculator(Calculator):
    """ASE calculator of an isolated cluster: energy (eV), its shares per atom, and forces (eV/Å).

    Of periodic atoms it computes the cluster joined over the faces of the cell; the atoms stay where they are.

    Args:
        model: A model (:class:`~pyg_clusters.models.ClusterModel`), or the name of a pretrained one. Called as
            ``model(z, pos, batch)``; returns ``[num_graphs]`` in eV, differentiable with respect to the
            positions (:class:`~pyg_clusters.models.SmoothDART`, :class:`~pyg_clusters.structures.Gupta`). Energies per
            atom are those of its method ``atomic_energies``, if it has one. Of an
            :class:`~pyg_clusters.models.Ensemble` all are means, and the standard deviation of the energy over the
            members is ``results["energy_spread"]`` (eV). Where the cluster is outside the geometries that the model
            was trained on, ``results["outside_training"]`` says how, and the first such cluster is warned of.

    Raises:
        InputError: When it is used, if the model has no forces, or was not trained on an element, or the atoms are
            periodic and no isolated cluster.

    Example:
        >>> from ase.cluster import Icosahedron
        >>> from pyg_clusters.structures import Gupta
        >>> cluster = Icosahedron("Na", 2, latticeconstant=5.2)
        >>> cluster.calc = ModelCalculator(Gupta("Na"))
        >>> print(f"{cluster.get_potential_energy():.2f} eV, {cluster.get_potential_energies()[0]:.2f} of the centre")
        -8.82 eV, -0.81 of the centre
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces"]

    def __init__(self, model: nn.Module | str):
        super().__init__()
        self.model = (load_model(model) if isinstance(model, str) else model).eval()
        self._warned = False

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Fills in the results; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        cluster = self.atoms
        assert cluster is not None
        if problem := model_problem(self.model, cluster):
            raise InputError(problem)
        positions = join_atoms(cluster).positions
        weight = next(self.model.parameters(), torch.zeros((), dtype=torch.double))
        z = torch.from_numpy(cluster.numbers).long().to(weight.device)
        centred = torch.from_numpy(positions - positions.mean(axis=0))
        pos = centred.to(weight.device, weight.dtype)
        batch = torch.zeros_like(z)
        energy, forces = energy_and_forces(self.model, z, pos, batch)
        self.results = {"energy": float(energy), "free_energy": float(energy), "forces": forces.double().cpu().numpy()}
        self._check_geometry(Atoms(cluster.numbers, positions))
        with torch.no_grad():
            if isinstance(self.model, HasSpread):
                self.results["energy_spread"] = float(self.model.mean_and_spread(z, pos, batch)[1])
            if "energies" in properties and isinstance(self.model, HasAtomicEnergies):
                self.results["energies"] = self.model.atomic_energies(z, pos, batch).double().cpu().numpy()

    def _check_geometry(self, cluster: Atoms):
        """Notes, and warns once, that the cluster is outside the range of geometries that the model knows."""
        reason = geometry_range_of(self.model).reason(cluster)
        if reason is None:
            return
        self.results["outside_training"] = reason
        if not self._warned:
            self._warned = True
            text = f"{reason}: do not trust this energy, nor what follows (results['outside_training'])"
            warnings.warn(text, ExtrapolationWarning, stacklevel=4)


class GuptaCalculator(ModelCalculator):
    """ASE calculator of a cluster of one element by the Gupta potential.

    Args:
        element: Symbol of the element, one of :data:`~pyg_clusters.structures.GUPTA_PARAMETERS`.
    """

    def __init__(self, element: str):
        super().__init__(Gupta(element))


def model_problem(model: nn.Module, atoms: Atoms) -> str | None:
    """Reason why a model cannot treat a frame, if any."""
    name = f"the model {type(model).__name__}"
    problem = element_problem(model, atoms.numbers.tolist()) or neutral_problem(atoms, name)
    domain = domain_of(model)
    if problem or domain is None or not getattr(model, "outermost_shell", False):
        return problem
    smallest, largest = domain.size_range
    if len(atoms) <= TIMES_LARGER * largest:
        return None
    return (
        f"{len(atoms):,} atoms are beyond {name}, which was trained on {smallest} to {largest} and sums over all atoms "
        "of a cluster; train one with outermost_shell: false"
    )
