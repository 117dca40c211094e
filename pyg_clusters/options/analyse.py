"""Options of ``pyg-clusters analyse``."""

from dataclasses import dataclass

from pyg_clusters.options.common import DeviceOptions, FrameOptions, ModelOptions, check_counts


@dataclass(kw_only=True)
class CoreSurfaceOptions(DeviceOptions, FrameOptions, ModelOptions):
    """Analyse core and surface atoms in the features of a model (Modee et al. 2021, section 3.4): the 32 features of
    each atom after the third hidden layer of the interaction network, their t-SNE, silhouettes, and a linear probe
    cross-validated over clusters, compared with the same probe on the shell counts. Writes atoms.csv,
    core_surface.json, figures and report.html.
    """

    sizes: str | None = None
    """numbers of atoms of the clusters to use; ``60:70`` is a range"""
    radii: str | None = None
    """end of the core and start of the surface, in Å from the centre of mass; by default the radii of the model"""
    perplexity: float = 30.0
    """perplexity of t-SNE"""
    seed: int = 0
    """seed of t-SNE"""
    group: str | None = None
    """key in the frames: clusters that share its value are kept together in the folds"""
    overwrite: bool = False
    """replace results in the folder"""
    out: str
    """folder of the results"""

    def __post_init__(self):
        check_counts(self, "seed", least=0)
