"""How Sphinx makes the pages."""

project = "Gateway"
author = "The Gateway developers"
copyright = "The Gateway developers"
extensions: list[str] = []
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "GPS trackers onto Redis streams", "page_width": "1100px"}
html_show_copyright = False
highlight_language = "none"
