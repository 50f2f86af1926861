"""MkDocs hook that converts formulas to MathML, which browsers render without scripts or external fonts."""

import re
from typing import Any

from latex2mathml.converter import convert

CODE = re.compile(r"(<pre.*?</pre>|<code.*?</code>|<script.*?</script>|<style.*?</style>)", re.DOTALL)
# Delimiters of formulas in the HTML of Markdown pages (index 0) and of notebooks (index 1).
DISPLAYED = [re.compile(r"\\\[(.+?)\\\]", re.DOTALL), re.compile(r"\$\$(.+?)\$\$", re.DOTALL)]
INLINE = [re.compile(r"\\\((.+?)\\\)", re.DOTALL), re.compile(r"\$([^$\n]+?)\$")]


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Returns the HTML of a page with its formulas as MathML and its code unchanged."""
    notebook = page.file.src_uri.endswith(".ipynb")
    patterns = [(DISPLAYED[notebook], "block"), (INLINE[notebook], "inline")]
    parts = CODE.split(html)
    for index in range(0, len(parts), 2):
        for pattern, display in patterns:
            parts[index] = pattern.sub(
                lambda found, display=display: convert(found[1].strip(), display=display), parts[index]
            )
    return "".join(parts)
