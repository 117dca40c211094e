"""Labels: energies of any ASE calculator, shieldings by density functional theory."""

from pyg_clusters.labels.energy import EnergyLabeller
from pyg_clusters.labels.files import LabelFiles
from pyg_clusters.labels.identity import frame_keys
from pyg_clusters.labels.labelled import Labelled
from pyg_clusters.labels.level import ShieldingLevel
from pyg_clusters.labels.prescreen import StabilityLabeller, tight_binding_gap
from pyg_clusters.labels.shielding import ShieldingLabeller
from pyg_clusters.labels.work import label_frames

__all__ = [
    "EnergyLabeller",
    "LabelFiles",
    "Labelled",
    "ShieldingLabeller",
    "ShieldingLevel",
    "StabilityLabeller",
    "frame_keys",
    "label_frames",
    "tight_binding_gap",
]
