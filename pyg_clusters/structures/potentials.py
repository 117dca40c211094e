"""Potentials with forces: the Gupta potential, effective medium theory, and an ASE calculator for models."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.calculators.emt import EMT, beta
from ase.data import atomic_numbers, chemical_symbols
from scipy.special import expit
from torch import Tensor, nn

from pyg_clusters.errors import InputError
from pyg_clusters.frames import ExtrapolationWarning
from pyg_clusters.frames.atoms import join_atoms
from pyg_clusters.frames.electronic_state import neutral_problem, state_problem, stated_state
from pyg_clusters.geometry import one_cluster, pad_clusters, pair_distances, sum_over_clusters
from pyg_clusters.models.checkpoint import load_model
from pyg_clusters.models.contract import HasAtomicEnergies, HasSpread, element_problem, evaluation_mode
from pyg_clusters.models.training_domain import domain_of, geometry_range_of, state_of_training
from pyg_clusters.options import Fragments
from pyg_clusters.positions import usable_positions

LI = "Li, Blaisten-Barojas, Papaconstantopoulos, Phys. Rev. B 1998, 57, 15519"
CLERI_ROSATO = "Cleri, Rosato, Phys. Rev. B 1993, 48, 22"


class GuptaParameters(NamedTuple):
    """Parameters of the Gupta potential of an element."""

    a: float  #: Repulsion energy A in eV.
    xi: float  #: Effective hopping integral ξ in eV.
    p: float  #: Decay of the repulsion.
    q: float  #: Decay of the hopping integral.
    r0: float  #: Reference distance in Å, close to the nearest-neighbour distance in the crystal.
    source: str  #: Publication of the parameters.


GUPTA_PARAMETERS: dict[str, GuptaParameters] = {
    "Na": GuptaParameters(0.015955, 0.291135, 10.13, 1.30, 3.6989, LI),
    "Ni": GuptaParameters(0.0376, 1.070, 16.999, 1.189, 3.523 / math.sqrt(2), CLERI_ROSATO),
    "Cu": GuptaParameters(0.0855, 1.224, 10.960, 2.278, 3.615 / math.sqrt(2), CLERI_ROSATO),
    "Pd": GuptaParameters(0.1746, 1.718, 10.867, 3.742, 3.887 / math.sqrt(2), CLERI_ROSATO),
    "Ag": GuptaParameters(0.1028, 1.178, 10.928, 3.139, 4.085 / math.sqrt(2), CLERI_ROSATO),
    "Pt": GuptaParameters(0.2975, 2.695, 10.612, 4.004, 3.924 / math.sqrt(2), CLERI_ROSATO),
    "Au": GuptaParameters(0.2061, 1.790, 10.229, 4.036, 4.079 / math.sqrt(2), CLERI_ROSATO),
}
"""Published parameters by element. The reference distance of the parameters of Cleri and Rosato is the lattice constant
(in Å) divided by the square root of two."""


class Gupta(nn.Module):
    r"""Gupta potential for clusters of one element.

    .. math::

        E = \sum_i \Bigl[ \sum_{j \ne i} A\, e^{-p (r_{ij} / r_0 - 1)}
            - \sqrt{\sum_{j \ne i} \xi^2 e^{-2q (r_{ij} / r_0 - 1)}} \Bigr]

    Called like a model, ``Gupta("Na")(z, pos, batch)`` returns the energies of the clusters ``[num_graphs]`` in eV,
    relative to isolated atoms. For forces, see :func:`~pyg_clusters.structures.energy_and_forces`.

    All pairs of a cluster are summed, without a cutoff. (The parameters of Cleri and Rosato were fitted with the first
    five neighbour shells of the crystal. Further shells contribute almost nothing in Ag, Au, Cu, Pd and Pt, but 6 % of
    the cohesive energy of Ni.) The parameters of sodium reproduce the lattice constant of the local density
    approximation, 4.05 Å; the experimental value is 4.23 Å. Relaxed distances are therefore about 4 % too short.

    Args:
        element: Symbol of the element, one of :data:`GUPTA_PARAMETERS`.
        constants: Your own parameters, for any element.

    Example:
        >>> dimer = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.75]])
        >>> print(Gupta("Au")(torch.tensor([79, 79]), dimer, torch.tensor([0, 0])))
        tensor([-3.6564])
    """

    def __init__(self, element: str, constants: GuptaParameters | None = None):
        super().__init__()
        if element not in atomic_numbers:
            raise InputError(f"there is no chemical element {element!r}")
        if constants is None and element not in GUPTA_PARAMETERS:
            known = ", ".join(GUPTA_PARAMETERS)
            raise InputError(f"there are no Gupta parameters for {element}, only for {known}; pass your own")
        self.element = element
        self.constants = GuptaParameters(*(constants or GUPTA_PARAMETERS[element]))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        batch = one_cluster(pos) if batch is None else batch
        return sum_over_clusters(self.atomic_energies(z, pos, batch), batch)

    def atomic_energies(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Compute the terms i of the sum, ``[num_atoms]`` in eV.

        Args:
            z: Atomic numbers ``[num_atoms]``, all of the element of this potential.
            pos: Positions ``[num_atoms, 3]`` in Å.
            batch: Cluster of each atom ``[num_atoms]``, sorted; a single cluster if omitted.

        Raises:
            InputError: If an atom is of another element.
        """
        other = z[z != atomic_numbers[self.element]]
        if other.numel():
            raise InputError(f"this is the Gupta potential of {self.element}, got {chemical_symbols[int(other[0])]}")
        batch = one_cluster(pos) if batch is None else batch
        if not batch.numel():
            return pos.new_zeros(0)
        pos, defect = usable_positions(pos, batch)
        padded, place, sizes = pad_clusters(pos, batch)
        pairs, _, distance = pair_distances(padded, sizes)
        of = self.constants
        stretch = distance / of.r0 - 1  # [num_graphs, num_atoms, num_atoms]
        repulsion = of.a * (torch.exp(-of.p * stretch) * pairs).sum(-1)
        density = of.xi**2 * (torch.exp(-2 * of.q * stretch) * pairs).sum(-1)
        bound = density > 0  # an isolated atom: the square root has no gradient at zero
        terms = repulsion - torch.where(bound, density, 1.0).sqrt() * bound
        return terms.flatten()[place] + defect

    def extra_repr(self) -> str:
        return self.element


EnergyFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function ``energy(z, pos, batch)`` of atomic numbers ``[num_atoms]``, positions ``[num_atoms, 3]`` in Å and the
cluster of each atom ``[num_atoms]``. Returns energies ``[num_graphs]`` in eV, differentiable in the positions."""


def energy_and_forces(energy: EnergyFunction, z: Tensor, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Compute energies ``[num_graphs]`` in eV and forces ``[num_atoms, 3]`` in eV/Å of clusters.

    Args:
        energy: Potential or model, evaluated in evaluation mode, in the precision of its weights.
        z: Atomic numbers ``[num_atoms]``.
        pos: Positions ``[num_atoms, 3]`` in Å. Energies and forces are returned in their precision. (Energies of a
            model with reference energies are always in double precision.)
        batch: Cluster of each atom ``[num_atoms]``, sorted.

    Raises:
        InputError: If the model returns a value per atom, or its energy does not depend smoothly on the positions.
    """
    weight = next(energy.parameters(), pos) if isinstance(energy, nn.Module) else pos
    with torch.enable_grad(), evaluation_mode(energy):
        moved = pos.detach().requires_grad_()
        energies = energy(z, moved.to(weight.dtype), batch)
        if energies.shape == batch.shape and batch.numel() > int(batch[-1:].sum()) + 1:
            raise InputError(f"{type(energy).__name__} gives a value per atom: it is not an energy model")
        energies = energies.to(torch.promote_types(energies.dtype, pos.dtype))
        (gradient,) = torch.autograd.grad(energies.sum(), moved, allow_unused=True)
    if gradient is None:
        name = type(energy).__name__
        raise InputError(
            f"{name} has no forces: its energy is not a smooth function of the positions; use a SmoothDART, for "
            "gallium the pretrained gallium-forces"
        )
    energies = energies.detach()
    return energies, torch.where(energies.isnan()[batch, None], torch.nan, -gradient)


TIMES_LARGER: int = 10
"""Size limit of clusters for models that sum over all atoms, as a multiple of the largest training cluster."""


JUMP: float = 3.0  # Å; if an atom moves by more between two calculations, the second is of another structure


class ModelCalculator(Calculator):
    """ASE calculator for isolated clusters with a model: energy (eV), atomic energies (eV) and forces (eV/Å).

    A cluster in a periodic cell is joined across the cell faces for the calculation; ``atoms`` is not modified.

    A cluster in pieces far apart raises an error: a cell may have cut it, or its positions may not be in Å. This is
    checked in the first calculation, and when the elements or the cell change or an atom has moved by more than 3 Å, so
    that a cluster may dissociate during molecular dynamics.

    Atomic energies are available if the model has the method ``atomic_energies``. For an
    :class:`~pyg_clusters.models.Ensemble`, the results are means over its members, and ``results["energy_spread"]`` is
    the standard deviation of the energy in eV. If the geometry is outside the range of the training set,
    ``results["outside_training"]`` contains the reason, and the first such geometry raises a warning.

    Args:
        model: Model (:class:`~pyg_clusters.models.ClusterModel`), or name of a pretrained model. It is called as
            ``model(z, pos, batch)`` and returns ``[num_graphs]`` in eV, differentiable with respect to the positions
            (such as :class:`~pyg_clusters.models.SmoothDART` or :class:`~pyg_clusters.structures.Gupta`).
        fragments: ``"keep"`` accepts clusters in several pieces, see :func:`~pyg_clusters.frames.join_atoms`.

    Raises:
        InputError: In a calculation, if the model has no forces or was not trained on an element, or if the atoms do
            not form an isolated cluster.
        CalculatorError: If a position is not finite, as after a simulation that diverged.

    Example:
        >>> from ase.cluster import Icosahedron
        >>> from pyg_clusters.structures import Gupta
        >>> cluster = Icosahedron("Na", 2, latticeconstant=5.2)
        >>> cluster.calc = ModelCalculator(Gupta("Na"))
        >>> print(f"{cluster.get_potential_energy():.2f} eV, {cluster.get_potential_energies()[0]:.2f} of the centre")
        -8.82 eV, -0.81 of the centre
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces"]

    def __init__(self, model: nn.Module | str, fragments: Fragments = "refuse"):
        super().__init__()
        self.model = (load_model(model) if isinstance(model, str) else model).eval()
        self.fragments = fragments
        self._warned = False
        self._last: np.ndarray | None = None

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute the results; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        cluster = self.atoms
        assert cluster is not None
        if problem := model_problem(self.model, cluster):
            raise InputError(problem)
        wrong = np.flatnonzero(~np.isfinite(cluster.positions).all(axis=1))
        if wrong.size:
            where = cluster.positions[wrong[0]].tolist()
            raise CalculatorError(f"atom {wrong[0]} is at {where}, which is not a valid position")
        near = self._last is not None and set(system_changes) <= {"positions"}
        near = near and bool(np.abs(cluster.positions - self._last).max() < JUMP)
        positions = join_atoms(cluster, "keep" if near and not cluster.pbc.any() else self.fragments).positions
        self._last = cluster.positions
        weight = next(self.model.parameters(), torch.zeros((), dtype=torch.double))
        z = torch.from_numpy(cluster.numbers).long().to(weight.device)
        centred = torch.from_numpy(positions - positions.mean(axis=0))
        pos = centred.to(weight.device, weight.dtype)
        batch = torch.zeros_like(z)
        energy, forces = energy_and_forces(self.model, z, pos, batch)
        self.results = {"energy": float(energy), "free_energy": float(energy), "forces": forces.double().cpu().numpy()}
        self._check_geometry(Atoms(cluster.numbers, positions))
        with torch.no_grad(), evaluation_mode(self.model):
            if isinstance(self.model, HasSpread):
                self.results["energy_spread"] = float(self.model.mean_and_spread(z, pos, batch)[1])
            if "energies" in properties and isinstance(self.model, HasAtomicEnergies):
                self.results["energies"] = self.model.atomic_energies(z, pos, batch).double().cpu().numpy()

    def _check_geometry(self, cluster: Atoms):
        """Record, and warn once, if the geometry is outside the range of the training set."""
        reason = geometry_range_of(self.model).reason(cluster)
        if reason is None:
            return
        self.results["outside_training"] = reason
        if not self._warned:
            self._warned = True
            text = f"{reason}: the energies of this and later structures may be wrong (results['outside_training'])"
            warnings.warn(text, ExtrapolationWarning, stacklevel=4)


class GuptaCalculator(ModelCalculator):
    """ASE calculator for clusters of one element with the Gupta potential.

    Args:
        element: Symbol of the element, one of :data:`~pyg_clusters.structures.GUPTA_PARAMETERS`.
        fragments: As for :class:`ModelCalculator`.
    """

    def __init__(self, element: str, fragments: Fragments = "refuse"):
        super().__init__(Gupta(element), fragments)


class ClusterEMT(EMT):
    r"""Fast version of ASE's :class:`~ase.calculators.emt.EMT` for isolated clusters, with the same results.

    Effective medium theory (Jacobsen, Stoltze, Nørskov, Surf. Sci. 1996, 366, 394) with the parameters of ASE for Al,
    Ni, Cu, Pd, Ag, Pt, Au and their alloys. As in ASE, energies are relative to the pure crystals. Dense arrays over
    all pairs make it 7 to 20 times as fast for clusters of 20 to 60 atoms.

    Example:
        >>> dimer = Atoms("CuAu", [[0, 0, 0], [0, 0, 2.4]], calculator=ClusterEMT())
        >>> print(f"{dimer.get_potential_energy():.4f} eV")
        3.1924 eV
    """

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute the results; called by ASE."""
        Calculator.calculate(self, atoms, list(properties), list(system_changes))
        cluster = self.atoms
        assert cluster is not None
        if cluster.pbc.any():
            raise InputError("this calculator is for isolated clusters: set atoms.pbc = False")
        if "numbers" in system_changes:
            self.initialize(cluster)
            self._of_atoms = {name: values[self.ia2iz] for name, values in self.par.items()}
            self._chi = self.chi[np.ix_(self.ia2iz, self.ia2iz)]
            self._no_pair = np.identity(len(cluster)) > 0
        self._evaluate(cluster.positions)

    def _evaluate(self, pos: np.ndarray):
        # i is the atom whose neutral sphere is filled by the density of its neighbours j.
        of = self._of_atoms
        s0, eta2, kappa = of["s0"], of["eta2"], of["kappa"]
        apart = pos[None] - pos[:, None]  # [num_atoms, num_atoms, 3], from i to j
        r = np.sqrt((apart**2).sum(axis=2))
        outside = self._no_pair | (r >= self.rc_list)
        r[self._no_pair] = 1.0
        cut = expit(self.acut * (self.rc - r))
        slope = self.acut * (cut - 1)  # logarithmic slope of the cutoff function
        cut[outside] = 0.0

        filling = np.exp(-eta2 * (r - beta * s0)) * self._chi * cut
        sigma = filling.sum(axis=1)
        alone = sigma == 0
        sigma[alone] = 1.0
        ds = -np.log(sigma * of["inv12gamma1"]) / (beta * eta2)
        stretch = of["lambda"] * ds
        cohesive = of["E0"] * np.exp(-stretch)
        repulsive = 6 * of["V0"] * np.exp(-kappa * ds)
        energies = cohesive * (1 + stretch) + repulsive
        deds = (cohesive * of["lambda"] * stretch + kappa * repulsive) / (beta * eta2 * sigma)
        energies[alone] = deds[alone] = 0.0

        pair = of["neghalfv0overgamma2"][:, None] * np.exp(-kappa * (r / beta - s0)) * self._chi * cut
        self.energies = energies + 0.5 * (pair + pair.T).sum(axis=1) - of["E0"]

        radial = deds[:, None] * filling * (slope - eta2) + pair * (slope - kappa / beta)
        radial = (radial + radial.T) / r
        self.forces = (radial[:, :, None] * apart).sum(axis=1)
        energy = float(self.energies.sum())
        self.results = {"energy": energy, "free_energy": energy, "energies": self.energies, "forces": self.forces}


def model_problem(model: nn.Module, atoms: Atoms) -> str | None:
    """Reason why a model cannot be applied to a frame, if any."""
    name = f"the model {type(model).__name__}"
    charge, any_spin = state_of_training(model)
    if charge or any_spin:
        problem = state_problem(stated_state(atoms), charge, any_spin)
    else:
        problem = neutral_problem(atoms, name)
    problem = element_problem(model, atoms.numbers.tolist()) or problem
    domain = domain_of(model)
    member = getattr(model, "members", [model])[0]
    if problem or domain is None or not getattr(member, "outermost_shell", False):
        return problem
    smallest, largest = domain.size_range
    if len(atoms) <= TIMES_LARGER * largest:
        return None
    return (
        f"{len(atoms):,} atoms are beyond {name}, which was trained on {smallest} to {largest} and sums over all atoms "
        "of a cluster; train one with outermost_shell: false"
    )
