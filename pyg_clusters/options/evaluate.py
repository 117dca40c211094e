"""Options of ``pyg-clusters evaluate``."""

from dataclasses import dataclass, field

from pyg_clusters.errors import InputError
from pyg_clusters.options.common import CheckOptions, CoverageOptions, DeviceOptions, EnergyUnitOptions


@dataclass(kw_only=True)
class EvaluateOptions(EnergyUnitOptions, DeviceOptions, CheckOptions, CoverageOptions):
    """Errors of a trained model: on the test set of its run, or on labelled frames."""

    run: str = field(metadata={"positional": True})
    """folder of a run, an ensemble or a saved model, or the name of a pretrained model"""
    frames: list[str] = field(default_factory=list, metadata={"positional": True})
    """files of labelled frames; without them the test set of the run is used"""
    target: str | None = None
    """name of the label in the frames: the energy, or the shielding of each atom in ppm; by default the label that the
    model was trained on, or binding_energy (nmr_shielding) if that is not known"""
    overwrite: bool = False
    """replace the file"""
    out: str | None = None
    """JSON file for the errors on frames"""

    def __post_init__(self):
        super().__post_init__()
        if not self.frames and self.out is not None:
            raise InputError("--out goes with FRAMES; the errors of a run are written to its test_metrics.json")
        if not self.frames and self.energy_unit is not None:
            raise InputError("--energy-unit goes with FRAMES; a run knows the unit of its own data")
