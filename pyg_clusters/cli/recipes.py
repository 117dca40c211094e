"""``pyg-clusters recipes``."""

import re
from itertools import takewhile

from pyg_clusters.options.recipes import RecipesOptions

OPTIONS = RecipesOptions
EXAMPLE = "pyg-clusters recipes dart-gallium"


def run(options: RecipesOptions):
    """List the shipped recipes, or print one of them."""
    from pyg_clusters.shipped import shipped_recipe, shipped_recipes

    if options.name is not None:
        print(shipped_recipe(options.name).read_text(encoding="utf-8"), end="")
        return
    for name, file in shipped_recipes().items():
        lines = takewhile(lambda line: line.startswith("# "), file.read_text(encoding="utf-8").splitlines())
        purpose = re.split(r"(?<! al)[.:,;(] |\.? pyg-clusters ", " ".join(line[2:] for line in lines))[0].strip()
        print(f"{name:<24} {purpose}")
    print("\npyg-clusters train NAME --out RUN; pyg-clusters new-recipe FILES... --out FILE for your own data")
