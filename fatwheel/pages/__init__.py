"""HTML pages that need no server and no other file: their templates, styles and scripts."""
