"""Options of ``pyg-clusters demo``."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class DemoOptions:
    """Run the main job from end to end on the shipped data: train DART on gallium clusters for two minutes, evaluate it
    on unseen clusters, score an MD trajectory of Ga57 and select the lowest-energy candidates.
    """

    out: str = "runs/demo"
    """folder of the results"""
    top: int = 100
    """number of candidates"""
