"""Options of the verbs for screening."""

from dataclasses import dataclass, field, fields

from pyg_clusters.errors import InputError
from pyg_clusters.options import (
    DeviceOptions,
    EnergyUnitOptions,
    EngineOptions,
    FrameOptions,
    ModelOptions,
    OverwriteOptions,
    check_counts,
    check_positive,
    verb,
)
from pyg_clusters.strategies import STRATEGIES, purposes

VACUUM: float = 7.5
"""Default vacuum in Å on each side of a cluster: periodic images are 15 Å apart."""


@dataclass(kw_only=True)
class StrategyOptions:
    """Parameters of the strategies of :mod:`pyg_clusters.strategies`."""

    top: int = 100
    """maximum number of candidates per cluster size or composition (not for bins)"""
    bins: int = 100
    """for bins and descriptor-bins: number of bins per cluster size or composition"""
    tolerance: float = 0.035
    """for unique: structures are copies if their atoms can be superposed to within this root-mean-square distance in
    Å"""
    spread_weight: float = 2.0
    """for uncertain: multiple of the spread that is subtracted from the energy"""

    def __post_init__(self):
        check_counts(self, "top", "bins")
        check_positive(self, "spread_weight", zero=True)
        check_positive(self, "tolerance", unit="Å")


@dataclass(kw_only=True)
class RelaxationOptions:
    """Relaxation before the selection."""

    relax: bool = False
    """relax the frames (in screen, those of the pool) with the forces of the model, and select among the relaxed
    structures"""
    fmax: float = 0.01
    """for --relax: largest remaining force on an atom, in eV/Å"""
    steps: int = 1000
    """for --relax: maximum number of force evaluations per frame"""

    def __post_init__(self):
        for option in fields(RelaxationOptions):
            if not self.relax and getattr(self, option.name) != option.default:
                raise InputError(f"--{option.name} requires --relax")
        check_counts(self, "steps")
        check_positive(self, "fmax", unit="eV/Å")


@verb(
    "screen",
    "pyg_clusters.screening.screen",
    "select the lowest-energy candidates of a trajectory",
    "gallium-forces md.extxyz --relax --out candidates",
)
@dataclass(kw_only=True)
class ScreenOptions(
    OverwriteOptions, StrategyOptions, RelaxationOptions, EnergyUnitOptions, EngineOptions, FrameOptions, ModelOptions
):
    """Select the lowest-energy candidates of each cluster size (for alloys, of each composition) among the frames of
    trajectories. The results are candidates.extxyz, candidates.csv (source_file, source_frame, size, composition of
    alloys, pred_rank from 1, pred_energy in eV, pred_energy_spread for models with an uncertainty estimate, pred_reason
    and the energy of --truth) and report.html. With --relax the candidates are relaxed; initial_pred_energy (eV),
    model_energy (eV), model_fmax (eV/Å), model_steps, converged and left_range describe the relaxation.
    """

    choose: str = field(default="rank", metadata={"choices": purposes})
    """selection strategy"""
    pool: int | None = None
    """for unique and diverse, and with --relax: number of lowest-energy frames of each size to select among; by default
    10 times --top (3 times for diverse without --relax)"""
    truth: str | None = None
    """name of the true energy in the frames, to compare with predictions; with --relax, that of the minimum nearest to
    a frame"""
    write: str | None = None
    """also write each candidate to its own folder in this ASE format (vasp for a POSCAR, aims, xyz, ...)"""
    vacuum: float = VACUUM
    """for --write: distance in Å between a candidate and the faces of its box; 0 for no box"""
    out: str
    """folder of the results"""

    def __post_init__(self):
        EngineOptions.__post_init__(self)
        if self.energy_unit is not None and self.truth is None:
            raise InputError("--energy-unit requires --truth")
        if self.choose not in STRATEGIES:
            raise InputError(f"--choose must be one of {', '.join(STRATEGIES)}; got {self.choose!r}")
        strategy = STRATEGIES[self.choose]
        defaults = {option.name: option.default for option in fields(StrategyOptions) if option.name != "top"}
        for name, default in defaults.items():
            if getattr(self, name) != default and name not in strategy.options():
                users = [other.name for other in STRATEGIES.values() if name in other.options()]
                self._refuse(name.replace("_", "-"), users)
        pooled = {name: other.pool for name, other in STRATEGIES.items() if other.pool is not None}
        if self.pool is not None and not self.relax and pooled.get(self.choose, 1) == 1:
            self._refuse("pool", [name for name, size in pooled.items() if size > 1], ", or --relax")
        if self.relax and self.choose not in pooled:
            self._refuse("relax", list(pooled))
        StrategyOptions.__post_init__(self)
        RelaxationOptions.__post_init__(self)
        check_counts(self, "pool")
        if self.pool is not None and self.pool < self.top:
            raise InputError(f"--pool {self.pool} is smaller than --top {self.top}: increase --pool or reduce --top")
        check_positive(self, "vacuum", unit="Å", zero=True)

    def _refuse(self, option: str, strategies: list[str], alternative: str = ""):
        names = " or ".join([", ".join(strategies[:-1]), strategies[-1]] if len(strategies) > 1 else strategies)
        raise InputError(f"--{option} requires --choose {names}{alternative}, not {self.choose}")


@verb(
    "benchmark-screening",
    "pyg_clusters.screening.benchmark_screening",
    "benchmark selection strategies on frames of known energy",
    "gallium gallium_md_46 --truth quench_binding_energy --out benchmark",
)
@dataclass(kw_only=True)
class BenchmarkScreeningOptions(
    OverwriteOptions, StrategyOptions, RelaxationOptions, EnergyUnitOptions, DeviceOptions, FrameOptions, ModelOptions
):
    """Benchmark selection strategies on frames of known energy (for example that of the minimum to which a frame
    quenches). The results are rank correlations of the predictions, and the regret, the recall of the lowest 50 frames,
    the enrichment and the number of distinct isomers of each strategy, of random frames, and of every third or fourth
    frame.
    """

    truth: str | None = None
    """name of the true energy in the frames; by default the target of the training"""
    own: str | None = None
    """name of the energy of the frames themselves, to also report errors with respect to it"""
    minima: list[str] | None = None
    """files of the minima of the frames, in the same order: isomers then also count as the same if their minima are
    copies, not only if their true energies are within 1 meV"""
    out: str | None = None
    """folder of the results; without it, results are only printed"""

    def __post_init__(self):
        StrategyOptions.__post_init__(self)
        RelaxationOptions.__post_init__(self)


@verb(
    "compare-dft",
    "pyg_clusters.screening.compare_dft",
    "compare DFT results with predictions",
    "screening screening/vasp/*/OUTCAR",
)
@dataclass(kw_only=True)
class CompareDFTOptions(OverwriteOptions):
    """Compare DFT results (or those of any other program) for the candidates of a screening with the predictions, and
    write dft.csv and dft.png to the folder of the screening. The columns of dft.csv are candidate (its number, from 1),
    source_file, source_frame, size, composition, pred_energy and dft_energy (eV), pred_above_mean and dft_above_mean
    (the same relative to the mean of the composition) and output. An output is matched to the candidate that equals its
    first structure, or by source_file and source_frame, otherwise by the number of its folder (0001_Ga46, ...). The
    energy of the last structure is used. Outputs may be missing. Energies are compared within a composition, so their
    zero does not matter.
    """

    screening: str = field(metadata={"positional": True})
    """folder of the results of pyg-clusters screen"""
    files: list[str] = field(metadata={"positional": True})
    """outputs in any format that ASE reads"""
    key: str = "energy"
    """name of the energy in the outputs, in eV unless they state another unit"""
