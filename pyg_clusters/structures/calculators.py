"""ASE calculators by name, and ASE's effective medium theory evaluated on all pairs at once."""

import importlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT, beta, parameters
from scipy.special import expit

from pyg_clusters.errors import InputError, MissingExtra, one_line
from pyg_clusters.files import file_fingerprint
from pyg_clusters.frames.electronic_state import INITIAL_ARRAYS, electronic_state, neutral_problem
from pyg_clusters.structures.potentials import GUPTA_PARAMETERS, GuptaCalculator
from pyg_clusters.structures.pyscf_calculator import PySCFCalculator, pyscf_problem
from pyg_clusters.trusted import current_folder

CALCULATORS: str = "gupta, emt, tblite, pyscf, gap:FILE or module:Class"
"""Names that :func:`named_calculator` accepts, in words."""


def named_calculator(name: str, elements: Collection[str]) -> Calculator:
    """The ASE calculator of a name, for clusters of some elements.

    - ``gupta``: :class:`~pyg_clusters.structures.GuptaCalculator`, for one element;
    - ``emt``: :class:`~pyg_clusters.structures.ClusterEMT`, for Al, Ni, Cu, Pd, Ag, Pt, Au and their alloys;
    - ``tblite``: GFN1-xTB (Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 2017, 13, 1989);
    - ``pyscf``: :class:`~pyg_clusters.structures.PySCFCalculator`, density functional theory;
    - ``gap:FILE``: the Gaussian approximation potential in an XML file (Bartók, Payne, Kondor, Csányi, Phys. Rev. Lett.
      2010, 104, 136403), or another potential of QUIP's;
    - ``module:Class``: a class of your own that is made without arguments. It is given charged clusters if it has the
      parameter ``charge`` (in ASE's ``default_parameters``) or says ``charge_from_info = True``, and reads
      ``atoms.info`` itself.

    Args:
        name: One of these.
        elements: Symbols of the elements that will occur.

    Raises:
        InputError: If there is no such calculator, or it does not know an element.
        MissingExtra: If its package is not installed.

    Example:
        >>> type(named_calculator("emt", ["Cu", "Au"])).__name__
        'ClusterEMT'
    """
    if name == "gupta":
        check_elements(name, elements)
        return GuptaCalculator(next(iter(elements)))
    if name == "emt":
        check_elements(name, elements)
        return ClusterEMT()
    if name == "tblite":
        return _tblite()
    if name == "pyscf":
        return PySCFCalculator()
    if name.startswith("gap:"):
        return _gap(Path(name.removeprefix("gap:")))
    if ":" in name:
        return _own(name)
    raise InputError(f"there is no calculator {name!r}; give {CALCULATORS}")


def check_elements(name: str, elements: Collection[str]):
    """Raise :class:`~pyg_clusters.errors.InputError` if ``gupta`` or ``emt`` has no parameters of these elements."""
    known = {"gupta": list(GUPTA_PARAMETERS), "emt": list(parameters)}.get(name, [])
    for element in elements:
        if known and element not in known:
            raise InputError(f"the calculator {name} knows only {', '.join(known)}, not {element}; take another")
    if name == "gupta" and len(set(elements)) > 1:
        raise InputError(f"the calculator gupta is for one element, not {', '.join(elements)}; emt does alloys")


def calculator_problem(name: str, atoms: Atoms) -> str | None:
    """Reason why a calculator cannot be used for a frame, if any: an unsupported element, charge or spin.

    Args:
        name: A name that :func:`named_calculator` knows.
        atoms: The frame.
    """
    try:
        check_elements(name, set(atoms.get_chemical_symbols()))
        state = electronic_state(atoms)
        if (state.charge or not state.is_lowest_spin) and not _takes_charge(name):
            return neutral_problem(atoms, f"the calculator {name}")
        if name == "pyscf":
            return pyscf_problem(atoms.numbers.tolist(), state.charge, state.multiplicity)
    except InputError as error:
        return str(error)
    return None


def calculator_identity(name: str) -> str:
    """Name of a calculator and content of its file, for the settings of a resumable job."""
    file = Path(name.removeprefix("gap:"))
    return f"{name}, {file_fingerprint(file)}" if name.startswith("gap:") and file.is_file() else name


def isolated(atoms: Atoms, calculator: Calculator) -> Atoms:
    """A copy of a cluster without a cell, with a calculator set to its charge and spin.

    They become the parameters ``charge`` and ``multiplicity`` of a calculator that has these; the copy keeps the
    ``info``, charges and magnetic moments of the cluster, which other calculators read.
    """
    copy = Atoms(atoms.numbers, atoms.positions, info=dict(atoms.info))
    for name in INITIAL_ARRAYS:
        if name in atoms.arrays:
            copy.set_array(name, atoms.arrays[name])
    parameters = _parameters(calculator)
    if "charge" in parameters:
        state = electronic_state(atoms)
        given: dict[str, object] = {"charge": state.charge}
        if "multiplicity" in parameters:
            given["multiplicity"] = state.multiplicity or type(calculator).default_parameters.get("multiplicity")
        calculator.set(**given)
    reset = getattr(calculator, "reset", None)
    if reset:  # ASE would return the results of the ion for the neutral cluster at the same positions
        reset()
    copy.calc = calculator
    return copy


def _parameters(calculator: Calculator) -> dict:
    """Parameters of a calculator by name, those that are not set included."""
    return {**getattr(calculator, "default_parameters", {}), **getattr(calculator, "parameters", {})}


@lru_cache
def _takes_charge(name: str) -> bool:
    """Whether a calculator has the parameter ``charge``, or looks for it in ``atoms.info``."""
    if name == "gupta":
        return False
    calculator = named_calculator(name, ())
    return "charge" in _parameters(calculator) or bool(getattr(calculator, "charge_from_info", False))


def _tblite() -> Calculator:
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise MissingExtra("tblite", "tblite", "the calculator tblite") from error
    return TBLite(method="GFN1-xTB", verbosity=0)


def _gap(file: Path) -> Calculator:
    if not file.is_file():
        raise InputError(f"the calculator gap:{file}: there is no such file; name the XML file of a potential")
    try:
        from quippy.potential import Potential
    except ImportError as error:
        raise MissingExtra("quippy-ase", "gap", "the calculator gap") from error
    try:
        return Potential(param_filename=str(file))
    except RuntimeError as error:
        raise InputError(f"the calculator gap:{file}: {one_line(error, 120)}") from error


def _own(name: str) -> Calculator:
    module, _, attribute = name.partition(":")
    try:
        with current_folder():
            calculator = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"the calculator {name} cannot be made: {error}; is its module on PYTHONPATH?") from error
    if not hasattr(calculator, "get_property"):
        raise InputError(f"{name} makes a {type(calculator).__name__}, which is no ASE calculator")
    return calculator


class ClusterEMT(EMT):
    r"""ASE's :class:`~ase.calculators.emt.EMT` for isolated clusters: the same energies and forces, faster.

    Effective medium theory (Jacobsen, Stoltze, Nørskov, Surf. Sci. 1996, 366, 394) with the parameters of ASE, for Al,
    Ni, Cu, Pd, Ag, Pt, Au and their alloys. As in ASE the energies are relative to the pure crystals.
    Clusters of 20 to 60 atoms take a seventh to a twentieth of the time, in dense arrays over all pairs.

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
        # Index i is the atom whose neutral sphere is filled, j the neighbour that fills it.
        of = self._of_atoms
        s0, eta2, kappa = of["s0"], of["eta2"], of["kappa"]
        apart = pos[None] - pos[:, None]  # [num_atoms, num_atoms, 3], from i to j
        r = np.sqrt((apart**2).sum(axis=2))
        outside = self._no_pair | (r >= self.rc_list)
        r[self._no_pair] = 1.0
        cut = expit(self.acut * (self.rc - r))
        slope = self.acut * (cut - 1)  # logarithmic slope of the cut-off function
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
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": self.energies,
            "forces": self.forces,
        }
