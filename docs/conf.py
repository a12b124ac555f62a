"""How Sphinx builds the documentation: tools/docs."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["COLUMNS"] = "80"

import aoti

project = "aoti"
release = aoti.__version__
copyright = "the authors of aoti"  # noqa: A001

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["examples"]
smartquotes = False  # they make --json a dash and a word
html_theme = "furo"
html_title = f"aoti {release}"

myst_heading_anchors = 3

# Text in single backticks in docstrings is a Python name, if there is one.
default_role = "py:obj"
# Names of parameters are in backticks too, and attributes of several classes are called so.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
