"""``python -m pyg_clusters`` is the command ``pyg-clusters``."""

import os
import sys

if __name__ == "__main__":
    # Python has put the current folder first: a file torch_scatter.py among one's data would be run as that package.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    from pyg_clusters.cli.main import main

    sys.exit(main())
