"""Formulas of the pages as MathML, which browsers show without scripts or fonts from elsewhere."""

import re
from typing import Any

from latex2mathml.converter import convert

CODE = re.compile(r"(<pre.*?</pre>|<code.*?</code>|<script.*?</script>|<style.*?</style>)", re.DOTALL)
# As Markdown pages come with formulas, and as notebooks do.
DISPLAYED = [re.compile(r"\\\[(.+?)\\\]", re.DOTALL), re.compile(r"\$\$(.+?)\$\$", re.DOTALL)]
INLINE = [re.compile(r"\\\((.+?)\\\)", re.DOTALL), re.compile(r"\$([^$\n]+?)\$")]


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """The page with its formulas converted; code stays as it is."""
    notebook = page.file.src_uri.endswith(".ipynb")
    patterns = [(DISPLAYED[notebook], "block"), (INLINE[notebook], "inline")]
    parts = CODE.split(html)
    for index in range(0, len(parts), 2):
        for pattern, display in patterns:
            parts[index] = pattern.sub(
                lambda found, display=display: convert(found[1].strip(), display=display), parts[index]
            )
    return "".join(parts)
