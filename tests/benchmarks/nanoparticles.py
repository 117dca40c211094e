"""Cost per atom of large clusters, and copper nanoparticles with a model trained on small clusters.

    python tests/benchmarks/nanoparticles.py sizes       # µs per atom of single clusters, and the memory
    python tests/benchmarks/nanoparticles.py frames copper.extxyz
    pyg-clusters train nanoparticles --data.dataset.files copper.extxyz --out runs/copper
    python tests/benchmarks/nanoparticles.py check runs/copper
    python tests/benchmarks/nanoparticles.py relax runs/copper
    python tests/benchmarks/nanoparticles.py dynamics runs/copper

Times are processor times of one thread (OMP_NUM_THREADS=1). The labels of the copper clusters come from
effective medium theory, which can also be computed for nanoparticles.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Decahedron, Icosahedron, Octahedron
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from pyg_clusters import pairs
from pyg_clusters.frames import write_extxyz
from pyg_clusters.geometry import GALLIUM_RADII
from pyg_clusters.inference import Predictor
from pyg_clusters.models import load_model
from pyg_clusters.structures import ClusterEMT, ModelCalculator, energy_and_forces, relax

SIZES = (200, 1_000, 3_000, 8_000, 20_000, 100_000)
"""Numbers of atoms of the nanoparticles whose cost is measured."""
ALL_PAIRS_UP_TO = 3_000
"""Largest cluster of which all pairs are formed; 8,000 atoms with forces take more than 10 GB."""
TEMPERATURES = (300, 700, 1100, 1500)
"""Temperatures in K of the dynamics that frames are taken from."""
FRAMES, STEPS_BETWEEN = 15, 30
"""Frames of each run, and time steps (of 4 fs) before each."""
COPPER = 3.61
"""Lattice constant in Å."""


def sphere(num_atoms: int, symbol: str = "Cu", constant: float = COPPER) -> Atoms:
    """Spherical cut of an fcc crystal."""
    cells = int(np.ceil((num_atoms / 4) ** (1 / 3) * 1.3)) + 2
    crystal = bulk(symbol, "fcc", constant, cubic=True).repeat(cells)
    centre = crystal.cell.sum(axis=0) / 2 + [0.3, 0.2, 0.1]
    order = np.sort(np.argsort(((crystal.positions - centre) ** 2).sum(axis=1), kind="stable")[:num_atoms])
    return Atoms(crystal.numbers[order], crystal.positions[order] - centre)


def memory() -> float:
    """Largest resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def cost(num_atoms: int, path: str):
    """Print a row of costs of one gallium cluster, from near pairs or all pairs."""
    torch.set_num_threads(1)
    pairs.LARGE = sys.maxsize if path == "all" else 1
    atoms = sphere(num_atoms, "Ga", 4.28)
    atoms.rattle(0.1, seed=0)
    z, pos = torch.from_numpy(atoms.numbers).long(), torch.from_numpy(atoms.positions).float()
    ptr, batch = torch.tensor([0, num_atoms]), torch.zeros_like(z)
    dart, smooth = Predictor("gallium"), Predictor("gallium-forces")
    tasks: dict[str, Callable[[], object]] = {
        "DART": lambda: dart(z[None], pos[None]),
        "SmoothDART": lambda: smooth(z[None], pos[None]),
        "forces": lambda: energy_and_forces(smooth.model, z, pos, batch),
        "RadiusGraph": lambda: pairs.radius_pairs(pos, ptr, 6.0),
        "descriptor": lambda: pairs.shell_counts(pos, ptr, GALLIUM_RADII),
    }
    costs = []
    for task in tasks.values():
        times = []
        for _ in range(3 if num_atoms < 5_000 else 1):
            start = time.process_time()
            task()
            times.append(time.process_time() - start)
        costs.append(f"{min(times) / num_atoms * 1e6:.0f}")
    print(f"| {num_atoms:,} | {path} |", " | ".join([*costs, f"{memory():.2f}"]), "|", flush=True)


def sizes():
    """Print the costs by size, each cluster in its own process."""
    print("| atoms | pairs | DART | SmoothDART | with forces | RadiusGraph(6) | descriptor | GB |", flush=True)
    for num_atoms in SIZES:
        for path in ("near", "all") if num_atoms <= ALL_PAIRS_UP_TO else ("near",):
            subprocess.run([sys.executable, __file__, "cost", path, "--atoms", str(num_atoms)], check=True)


def starts() -> dict[str, Atoms]:
    """Clusters of 38 to 147 atoms: closed shells, and spheres with steps and corners."""
    closed = {
        "octahedron": Octahedron("Cu", 4, 1),
        "decahedron": Decahedron("Cu", 2, 2, 1),
        "icosahedron": Icosahedron("Cu", 3),
        "large icosahedron": Icosahedron("Cu", 4),
    }
    return closed | {f"sphere {size}": sphere(size) for size in (45, 68, 93, 130)}


def frames() -> Iterator[Atoms]:
    """Frames of hot dynamics with energies and forces of effective medium theory."""
    for name, start in starts().items():
        for temperature in TEMPERATURES:
            cluster = Atoms(start.numbers, start.positions, calculator=ClusterEMT())
            rng = np.random.default_rng([len(cluster), temperature])
            thermalize_momenta(cluster, temperature_K=2 * temperature, rng=rng)  # half of it becomes potential energy
            run = Langevin(cluster, 4 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
            for _ in range(FRAMES):
                run.run(STEPS_BETWEEN)
                frame = Atoms(cluster.numbers, cluster.positions, info={"group": f"{name} {temperature} K"})
                frame.info["energy"] = cluster.get_potential_energy()
                frame.arrays["forces"] = cluster.get_forces()
                yield frame


def check(model: str):
    """Print errors of energies and forces for nanoparticles at 0.1 Å from the lattice."""
    for num_atoms in (147, 1_000, 20_000):
        cluster = sphere(num_atoms)
        cluster.rattle(0.1, seed=0)
        cluster.calc = EMT()
        energy, forces = cluster.get_potential_energy(), cluster.get_forces()
        cluster.calc = ModelCalculator(model)
        error = 1000 * (cluster.get_potential_energy() - energy) / num_atoms
        of_forces = 1000 * np.abs(cluster.get_forces() - forces).mean()
        print(
            f"{num_atoms:,} atoms: {error:+.1f} meV/atom, forces {of_forces:.0f} meV/Å ({_mean(forces):.0f} on average)"
        )


def _mean(forces: np.ndarray) -> float:
    return 1000 * float(np.abs(forces).mean())


def relaxation(model: str, num_atoms: int):
    """Relax a nanoparticle and print steps, time and memory."""
    cluster, start = sphere(num_atoms), time.process_time()
    cluster.rattle(0.1, seed=0)
    z, pos = torch.from_numpy(cluster.numbers).long(), torch.from_numpy(cluster.positions)
    found = relax(load_model(model).eval(), z, pos, torch.zeros_like(z), fmax=0.05)
    print(
        f"{num_atoms:,} atoms: {int(found.steps)} steps to {float(found.fmax):.3f} eV/Å, converged "
        f"{bool(found.converged)}, {time.process_time() - start:.0f} s, {memory():.2f} GB"
    )


def dynamics(model: str, num_atoms: int, steps: int = 20):
    """Run molecular dynamics at constant energy and print its drift, time and memory."""
    cluster = sphere(num_atoms)
    cluster.calc = ModelCalculator(model)
    thermalize_momenta(cluster, temperature_K=600, rng=np.random.default_rng(0))
    run = VelocityVerlet(cluster, 3 * units.fs)
    before, start = cluster.get_total_energy(), time.process_time()
    run.run(steps)
    drift = 1000 * (cluster.get_total_energy() - before) / num_atoms
    seconds = (time.process_time() - start) / steps
    print(f"{num_atoms:,} atoms: {seconds:.2f} s a step, {memory():.2f} GB; {drift:+.3f} meV/atom after {steps} steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sizes", "cost", "frames", "check", "relax", "dynamics"])
    parser.add_argument("path", nargs="?", help="file of frames, trained model, or near or all (of cost)")
    parser.add_argument("--atoms", type=int, default=20_000)
    options = parser.parse_args()
    if options.what == "sizes":
        sizes()
    elif options.what == "cost":
        cost(options.atoms, options.path)
    elif options.what == "frames":
        write_extxyz(options.path, frames())
    elif options.what == "check":
        check(options.path)
    else:
        {"relax": relaxation, "dynamics": dynamics}[options.what](options.path, options.atoms)


if __name__ == "__main__":
    main()
