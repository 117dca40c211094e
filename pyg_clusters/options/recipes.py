"""Options of ``pyg-clusters recipes``, ``new-recipe`` and ``models``."""

from dataclasses import dataclass, field

from pyg_clusters.options.common import FrameOptions


@dataclass(kw_only=True)
class RecipesOptions:
    """List the recipes that come with the package, for ``pyg-clusters train NAME``; with a name, print the recipe."""

    name: str | None = field(default=None, metadata={"positional": True})
    """recipe to print"""


@dataclass(kw_only=True)
class ModelsOptions:
    """List the pretrained models that come with the package; ``pyg-clusters info NAME`` prints more of one."""


@dataclass(kw_only=True)
class NewRecipeOptions(FrameOptions):
    """Write a commented training recipe for your own files of frames: from a look at the frames it names the label, the
    forces and the elements, sets the radii by the pair-distance distribution g(r), and chooses model and split.
    """

    target: str | None = None
    """name of the label, if the frames have several"""
    epochs: int = 60
    """number of epochs"""
    overwrite: bool = False
    """replace an existing file"""
    out: str
    """recipe to write (.yaml)"""
