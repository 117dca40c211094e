"""Options of ``pyg-clusters benchmark-screening``."""

from dataclasses import dataclass

from pyg_clusters.options.common import DeviceOptions, EnergyUnitOptions, FrameOptions, ModelOptions
from pyg_clusters.options.screen import RelaxationOptions, StrategyOptions


@dataclass(kw_only=True)
class BenchmarkScreeningOptions(
    StrategyOptions, RelaxationOptions, EnergyUnitOptions, DeviceOptions, FrameOptions, ModelOptions
):
    """Benchmark the strategies of screening on frames whose true energies are known (those of the minima that they
    quench to): rank correlations of the predictions; and for each strategy, and for random frames and every third or
    fourth frame: regret, recall of the lowest 50 frames, enrichment, distinct isomers.
    """

    truth: str | None = None
    """name of the true energy in the frames; by default the target of the training"""
    own: str | None = None
    """name of the energy of the frame itself: also report the error against it"""
    minima: list[str] | None = None
    """files of the minima of the frames, in the same order: isomers are the same if their structures are; without this
    only if their true energies are within 1 meV"""
    overwrite: bool = False
    """replace results in the folder"""
    out: str | None = None
    """folder of the results; without it they are only printed"""

    def __post_init__(self):
        StrategyOptions.__post_init__(self)
        RelaxationOptions.__post_init__(self)
