"""Configuration of the documentation."""

import pyg_clusters

project = "pyg_clusters"
author = "pyg_clusters developers"
copyright = author
version = release = pyg_clusters.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyg_clusters {release}"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 2

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]
