"""``pyg-clusters relax``."""

from pyg_clusters.formatting import count_of
from pyg_clusters.options.relax import RelaxOptions

OPTIONS = RelaxOptions
EXAMPLE = "pyg-clusters relax na.extxyz --calculator gupta --out relaxed.extxyz"


def run(options: RelaxOptions):
    """Relax frames to local minima."""
    from pyg_clusters.frames.checks import list_bad
    from pyg_clusters.structures.relax_frames import relax_frames

    result = relax_frames(options)
    list_bad(result.bad)
    print(f"{count_of(result.frames, 'frame')} in {options.out}, {result.not_converged} of them not converged")
    if result.left_range:
        print(
            f"{result.left_range} of these were stopped where they left the geometries in which the energy can be "
            "trusted (reason in info left_range): their energies mean nothing"
        )
