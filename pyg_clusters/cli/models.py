"""``pyg-clusters models``."""

from pyg_clusters.options.recipes import ModelsOptions

OPTIONS = ModelsOptions
EXAMPLE = "pyg-clusters models"


def run(options: ModelsOptions):
    """List the pretrained models."""
    from pyg_clusters.models import available_models

    for name, title in available_models().items():
        print(f"{name:<20} {title}")
    print("\npyg-clusters predict NAME FRAMES... --out FILE; pyg-clusters info NAME")
