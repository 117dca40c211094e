"""Options of ``pyg-clusters ensemble``."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class EnsembleOptions:
    """Join several runs into an ensemble. The runs stay where they are; the folder of the ensemble is used like that of
    a run, and its prediction is the mean of the members. (train --ensemble 5 trains the members too.)
    """

    runs: list[str] = field(metadata={"positional": True})
    """folders of runs or saved models, of the same data"""
    out: str
    """folder of the ensemble"""
