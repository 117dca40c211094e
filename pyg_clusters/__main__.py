"""Entry point of ``python -m pyg_clusters``, equivalent to the command ``pyg-clusters``."""

import os
import sys

if __name__ == "__main__":
    # Python searches the current folder first: a file torch_scatter.py in it would be imported instead of the package.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    from pyg_clusters.cli import main

    sys.exit(main())
