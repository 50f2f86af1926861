"""Placeholders for objects other than the tensors in PyTorch checkpoints.

Checkpoints often contain NumPy scalars, such as the best loss, random states, and the arguments of the
command. PyTorch's restricted reader rejects such a file. With placeholders, it reads the tensors and creates
inert objects in place of the others, so that no code of NumPy or of the file is run.
"""

from typing import Any

# Names that are replaced, by module. NumPy's modules have two names, before and after NumPy 2.
REPLACED = {
    **dict.fromkeys(("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar", "_reconstruct")),
    "numpy": ("dtype", "ndarray"),
    "argparse": ("Namespace",),  # the command line, in DINO's full checkpoints
    **dict.fromkeys(("pathlib", "pathlib._local"), ("PosixPath", "WindowsPath")),
}


class Placeholder:
    """Stands in for an object that is not created."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Ignores the state."""


# One class for each name that is replaced, with this name, as torch.serialization.safe_globals requires.
PLACEHOLDERS = [
    type(name, (Placeholder,), {"__module__": module}) for module, names in REPLACED.items() for name in names
]
