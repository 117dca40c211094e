"""Export of models for molecular-dynamics programs."""

import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from pyg_clusters.errors import InputError, MissingExtra
from pyg_clusters.files import atomic_write, write_json
from pyg_clusters.frames.periodic_bonds import BOND_FACTOR, MIN_VACUUM
from pyg_clusters.inference.flags import ONE_ATOM
from pyg_clusters.inference.run import Run
from pyg_clusters.models import Ensemble
from pyg_clusters.models.checkpoint import SHIPPED
from pyg_clusters.models.contract import HasAtomicEnergies
from pyg_clusters.models.training_domain import TrainingDomain, domain_of
from pyg_clusters.nn.output_scale import reference_energies
from pyg_clusters.options.frames import ExportOptions
from pyg_clusters.pairs import COVALENT_RADII, NEIGHBORS
from pyg_clusters.structures import energy_and_forces

ENERGIES, SETTINGS, MODEL = "energies.pt", "settings.json", "model.pt"
"""Names of the files that ``metatomic_model.py`` reads and writes."""

SPACING: float = 2.8  # interatomic distance in Å of the clusters on which a model is traced and tested
TRACED_ON: int = 13  # number of atoms of the cluster on which a model is traced
TOLERANCE: float = 1e-5  # maximum difference in eV and eV/Å per atom between a model and its trace


class Exported(NamedTuple):
    """Exported model file."""

    file: str
    elements: str  # symbols, with commas between them
    precision: str  # type of its numbers, float32 or float64
    device: str  # processor or GPU that it is for

    def __str__(self) -> str:
        return (
            f"{self.file}: energies (eV) and forces (eV/Å) of {self.elements}, {self.precision}, on {self.device}\n"
            f"ASE: MetatomicCalculator({self.file!r}) of the package metatomic-ase"
        )


class AtomicEnergies(nn.Module):
    """Atomic energies ``[num_atoms, num_members]`` of a cluster in eV, by each member of an ensemble."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.members = members_of(model)

    def forward(self, z: Tensor, pos: Tensor) -> Tensor:
        batch = torch.zeros_like(z)
        shares = [member.atomic_energies(z, pos, batch).to(pos.dtype) for member in self.members]  # type: ignore[operator]
        return torch.stack(shares, dim=1)  # [num_atoms, num_members]


def members_of(model: nn.Module) -> nn.ModuleList:
    """Members of an ensemble; a single model is its only member."""
    return model.members if isinstance(model, Ensemble) else nn.ModuleList([model])


def export(options: ExportOptions) -> Exported:
    """Export a model to a metatomic file, which runs without this package.

    The model is traced on one cluster (:func:`torch.jit.trace`), and the trace is compared with the model on clusters
    of other sizes. Models with reference energies are exported in double precision, others in the precision of their
    weights.

    Raises:
        InputError: If the model has no forces or cannot be traced, or the file exists.
        MissingExtra: If metatomic is not installed.
    """
    if find_spec("metatomic") is None:
        raise MissingExtra("metatomic-torch", "metatomic", "export")
    if Path(options.file).exists() and not options.overwrite:
        raise InputError(f"{options.file} already exists; choose another file or pass --overwrite")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU; export on a machine with one")
    run = Run(options.model)
    model = run.model
    domain, kind = domain_of(model), type(model).__name__
    if domain is None or not all(isinstance(member, HasAtomicEnergies) for member in members_of(model)):
        lacks = "energies of atoms" if domain else "a known training set"
        raise InputError(f"{options.model}: a model without {lacks} cannot be exported; a trained SmoothDART can")
    model = model.double() if reference_energies(model) else model
    model = model.to(options.device)
    recorded = _recorded(model, domain, torch.device(options.device))
    if run.forces is None:
        warnings.warn(
            f"{options.model} was not trained on forces: its forces may be unsuitable for dynamics, and they are "
            "meaningless if its energies are those of quenched frames",
            stacklevel=2,
        )
    elements, scale = domain.atomic_numbers, domain.geometry_range.scale
    precision = str(next(model.parameters()).dtype).removeprefix("torch.")
    settings = {
        "module": {
            "sizes": domain.size_range,
            "limits": domain.geometry_range.limits,
            "scale": [] if scale is None else scale[elements][:, elements].tolist(),
            "elements": elements,
            "symbols": [chemical_symbols[number] for number in elements],
            "fractions": domain.fraction_ranges,
            "one_atom": ONE_ATOM,
            "neighbors": NEIGHBORS,
            "radii": COVALENT_RADII.tolist(),
            "vacuum": MIN_VACUUM,
            "reach": 2 * BOND_FACTOR,
        },
        "capabilities": {"atomic_types": elements, "supported_devices": [options.device], "dtype": precision},
        "members": len(members_of(model)),
        "metadata": {"name": Path(options.model).name, "description": _description(options.model, kind, domain)},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, which metatomic is made of
            torch.jit.save(recorded, folder / ENERGIES)
        write_json(folder / SETTINGS, settings)
        command = [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("metatomic_model.py")), name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"metatomic cannot write the model: {done.stderr.strip().splitlines()[-1]}")
        with atomic_write(options.file) as path:
            shutil.copyfile(folder / MODEL, path)
    return Exported(options.file, domain.symbols, precision, options.device)


def _description(name: str, kind: str, domain: TrainingDomain) -> str:
    """Card of a shipped model, or a description of the training set of other models."""
    card = SHIPPED / name / "README.md"
    if card.is_file() and not Path(name).exists():
        return card.read_text(encoding="utf-8")
    (low, high), (charge, _) = domain.size_range, domain.electronic_state
    return f"{kind} for isolated clusters of {domain.symbols}, {low} to {high} atoms, charge {charge} e"


def _recorded(model: nn.Module, domain: TrainingDomain, device: torch.device) -> nn.Module:
    """Trace :class:`AtomicEnergies`, and compare the trace with the model."""
    energies, kind = AtomicEnergies(model), type(model).__name__
    dtype = next(model.parameters()).dtype
    clusters = [_cluster(size, domain, device, dtype) for size in (TRACED_ON, 1, 2, 3, domain.size_range[1])]
    energy_and_forces(model, *clusters[0], torch.zeros_like(clusters[0][0]))  # raises without forces
    model.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about data-dependent control flow, which the comparison below detects
            traced = torch.jit.trace(energies, clusters[0], check_trace=False)
        errors = [_difference(energies, traced, z, pos) for z, pos in clusters]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise InputError(f"the operations of a {kind} cannot be traced ({reason}); SmoothDART's can") from error
    if not max(errors) <= TOLERANCE:
        raise InputError(
            f"the operations of a {kind} depend on the cluster (traced results differ by {max(errors):.1g} eV); "
            "those of SmoothDART do not"
        )
    return traced


def _difference(energies: nn.Module, traced: nn.Module, z: Tensor, pos: Tensor) -> float:
    """Maximum difference of atomic energies (eV) and forces (eV/Å)."""
    results = []
    for function in (energies, traced):
        moved = pos.clone().requires_grad_()
        energy = function(z, moved)
        (gradient,) = torch.autograd.grad(energy.sum(), moved)
        results.append(torch.cat([energy.detach(), gradient], dim=1))
    return float((results[0] - results[1]).abs().max())


def _cluster(size: int, domain: TrainingDomain, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Generate a test cluster of perturbed lattice points around the origin, with alternating elements."""
    side = torch.arange(math.ceil(size ** (1 / 3)) + 1, dtype=dtype)
    lattice = torch.cartesian_prod(side, side, side)
    pos = SPACING * lattice[lattice.square().sum(dim=1).argsort(stable=True)[:size]]
    pos = pos + 0.3 * torch.rand(pos.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    numbers = torch.tensor(domain.atomic_numbers)
    return numbers[torch.arange(size) % len(numbers)].to(device), pos.to(device)
