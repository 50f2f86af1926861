"""Griffe extension for docstring entries with several names, such as `x, y: coordinates`."""

from typing import Any

import griffe


class JointNames(griffe.Extension):
    """Rejoins names that the docstring parser splits into a name and a type."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rejoins the names in the parsed docstring of an object, if it has one."""
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
