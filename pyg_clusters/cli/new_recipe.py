"""``pyg-clusters new-recipe``."""

from pyg_clusters.options.recipes import NewRecipeOptions

OPTIONS = NewRecipeOptions
EXAMPLE = "pyg-clusters new-recipe md1.extxyz md2.extxyz --out recipe.yaml"


def run(options: NewRecipeOptions):
    """Write a recipe for the user's own files, and print what it is for."""
    from pyg_clusters.training.new_recipe import new_recipe

    print("\n".join(new_recipe(options)))
    print(f"recipe in {options.out}; next: pyg-clusters train {options.out} --out runs/own")
