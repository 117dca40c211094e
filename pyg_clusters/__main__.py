"""``python -m pyg_clusters`` is the command ``pyg-clusters``."""

import sys

from pyg_clusters.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
