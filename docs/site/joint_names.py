"""Docstrings may describe several names in one line, `x, y: coordinates`: the API pages show them so."""

from typing import Any

import griffe


class JointNames(griffe.Extension):
    """Puts together again what the docstring parser takes for a name and its type."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mends the parsed docstring of an object, if it has one."""
        if obj.docstring is None or obj.is_module:
            return
        for section in obj.docstring.parsed:
            if section.kind not in (
                griffe.DocstringSectionKind.parameters,
                griffe.DocstringSectionKind.attributes,
            ):
                continue
            for item in section.value:
                if item.name.endswith(","):
                    item.name = f"{item.name} {item.annotation}"
                    item.annotation = None
