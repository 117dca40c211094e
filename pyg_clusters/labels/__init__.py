"""Labels: energies and forces from any ASE calculator, shieldings from density functional theory."""

from pyg_clusters.labels.dft.level import ShieldingLevel
from pyg_clusters.labels.label import LabelFiles, frame_keys
from pyg_clusters.labels.labellers import EnergyLabeller, LabelResult, label_frames
from pyg_clusters.labels.shielding import ShieldingLabeller, StabilityLabeller, tight_binding_gap

__all__ = [
    "EnergyLabeller",
    "LabelFiles",
    "LabelResult",
    "ShieldingLabeller",
    "ShieldingLevel",
    "StabilityLabeller",
    "frame_keys",
    "label_frames",
    "tight_binding_gap",
]
