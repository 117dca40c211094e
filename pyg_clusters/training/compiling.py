"""What ``torch.compile`` needs."""

import os
import shutil
import sys

from pyg_clusters.errors import InputError


def check_compiler():
    """Checks that there is a C++ compiler, with which PyTorch makes the code of a compiled model.

    Raises:
        InputError: If there is none.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise InputError(
            f"compile: true needs a C++ compiler, and there is no {name}: install one, name yours (CXX=...), or leave "
            "compile out"
        )
