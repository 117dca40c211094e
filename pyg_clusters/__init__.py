"""Graph neural networks for metal clusters on PyTorch Geometric: energies of isomers, screening of trajectories.

Importing the package does not load its subpackages. Import from them, as in ``from pyg_clusters.models import DART``.
"""

__version__ = "0.2.0"
