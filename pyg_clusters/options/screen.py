"""Options of ``pyg-clusters screen``."""

from dataclasses import dataclass, field, fields

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import (
    EnergyUnitOptions,
    EngineOptions,
    FrameOptions,
    ModelOptions,
    check_counts,
    check_positive,
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
    """for unique: structures are copies if their atoms can be superposed to this distance (root mean square in Å)"""
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
    """relax frames (of screen: those of the pool) with the forces of the model, and select among the relaxed
    structures"""
    fmax: float = 0.01
    """for --relax: largest force on an atom after the relaxation, in eV/Å"""
    steps: int = 1000
    """for --relax: maximum number of force evaluations per frame"""

    def __post_init__(self):
        for option in fields(RelaxationOptions):
            if not self.relax and getattr(self, option.name) != option.default:
                raise InputError(f"--{option.name} goes with --relax")
        check_counts(self, "steps")
        check_positive(self, "fmax", unit="eV/Å")


@dataclass(kw_only=True)
class ScreenOptions(StrategyOptions, RelaxationOptions, EnergyUnitOptions, EngineOptions, FrameOptions, ModelOptions):
    """Select the lowest-energy candidates among the frames of trajectories, by cluster size (of alloys by composition).
    The results are candidates.extxyz, candidates.csv (source_file, source_frame, size, pred_rank, pred_energy,
    pred_energy_spread of a model with an uncertainty estimate, pred_reason) and report.html. With --relax the
    candidates are relaxed; initial_pred_energy, model_energy, model_fmax, model_steps and converged describe the
    relaxation.
    """

    choose: str = field(default="rank", metadata={"choices": purposes})
    """strategy"""
    pool: int | None = None
    """for unique and diverse, and with --relax: number of lowest frames of a size to select among, 10 times --top if
    not given (for diverse without --relax 3 times)"""
    truth: str | None = None
    """name of the true energy in the frames, for the report"""
    write: str | None = None
    """also write each candidate to its own folder in this format of ASE (vasp: POSCAR, aims, xyz, ...)"""
    vacuum: float = VACUUM
    """for --write: Å between a candidate and its box; 0: no box"""
    overwrite: bool = False
    """replace results in the folder"""
    out: str
    """folder of the results"""

    def __post_init__(self):
        EngineOptions.__post_init__(self)
        if self.energy_unit is not None and self.truth is None:
            raise InputError("--energy-unit goes with --truth")
        if self.choose not in STRATEGIES:
            raise InputError(f"--choose must be {', '.join(STRATEGIES)}; got {self.choose!r}")
        strategy = STRATEGIES[self.choose]
        defaults = {option.name: option.default for option in fields(StrategyOptions) if option.name != "top"}
        for name, default in defaults.items():
            if getattr(self, name) != default and name not in strategy.options():
                users = [other.name for other in STRATEGIES.values() if name in other.options()]
                self._refuse(name.replace("_", "-"), users)
        pooled = {name: other.pool for name, other in STRATEGIES.items() if other.pool is not None}
        if self.pool is not None and not self.relax and pooled.get(self.choose, 1) == 1:
            self._refuse("pool", [name for name, size in pooled.items() if size > 1], ", or with --relax")
        if self.relax and self.choose not in pooled:
            self._refuse("relax", list(pooled))
        StrategyOptions.__post_init__(self)
        RelaxationOptions.__post_init__(self)
        check_counts(self, "pool")
        check_positive(self, "vacuum", unit="Å", zero=True)

    def _refuse(self, option: str, strategies: list[str], alternative: str = ""):
        names = " or ".join([", ".join(strategies[:-1]), strategies[-1]] if len(strategies) > 1 else strategies)
        raise InputError(f"--{option} goes with --choose {names}{alternative}, not with {self.choose}")
