"""Configuration of the documentation."""

import os
import socket
import sys
import tomllib
from functools import partialmethod
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from nbclient import NotebookClient
from sphinx.application import Sphinx

import pyg_clusters

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)  # of the tutorials' commands

from command_pages import write_command_pages  # noqa: E402

# A command writes its output in chunks; a tutorial shows them as one text.
NotebookClient.__init__ = partialmethod(NotebookClient.__init__, coalesce_streams=True)  # type: ignore[method-assign]

URLS = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})

project = "pyg_clusters"
author = "pyg_clusters developers"
copyright = author
version = release = pyg_clusters.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
smartquotes = False
html_theme = "furo"
html_title = f"pyg_clusters {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"top_of_page_buttons": ["view"]}
if "Source" in URLS:
    html_theme_options = {
        "source_repository": URLS["Source"],
        "source_branch": "main",
        "source_directory": "docs/",
        "top_of_page_buttons": ["view", "edit"],
    }

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = False

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]

INVENTORIES = {
    "ase": "https://ase-lib.org/",
    "numpy": "https://numpy.org/doc/stable/",
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "torch_geometric": "https://pytorch-geometric.readthedocs.io/en/latest/",
}


def reachable(address: str) -> bool:
    """Whether a web server can be reached: without a network the documentation has no links to other projects."""
    try:
        socket.create_connection((address.split("/")[2], 443), timeout=2).close()
    except OSError:
        return False
    return True


intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if reachable(url)}


def write_mathml(translator, node: nodes.Element):
    """Write a formula as MathML, which browsers render without a script or a network."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(convert(node.astext(), display="block" if block else "inline"))
    raise nodes.SkipNode


def show_commands(app: Sphinx, document: nodes.document):
    """Show the cells of tutorials that run a shell as what a user types."""
    for block in document.findall(nodes.literal_block):
        if block.rawsource.startswith("%%bash\n"):
            text = block.rawsource.removeprefix("%%bash\n")
            block.rawsource, block.children, block["language"] = text, [], "bash"
            block += nodes.Text(text)


def keep_colons(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]):
    """Keep napoleon from reading the text before a colon as the type of a constant."""
    if what in ("attribute", "data", "property") and lines:
        lines[0] = f": {lines[0]}"


def setup(app: Sphinx):
    """Register the renderer of formulas, the pages of the command line, and commands in tutorials."""
    app.connect("doctree-read", show_commands)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
    app.config.html_math_renderer = "mathml"
    app.connect("builder-inited", lambda app: write_command_pages(DOCS / "reference/commands"))
