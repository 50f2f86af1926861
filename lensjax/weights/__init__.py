"""Conversion of weights between PyTorch and Flax, and weight files.

`convert_state_dict(read_torch(path).arrays)` converts a PyTorch checkpoint, and
`write_torch(path, to_state_dict(variables, architecture))` writes one. `save` and `load` use lensjax's own
file format.
"""

from lensjax.weights.conversion import (
    ConvertedStateDict,
    check_complete,
    convert_state_dict,
    load_state_dict,
    to_state_dict,
)
from lensjax.weights.store import load, save
from lensjax.weights.torch_files import StateDict, file_sha256, read_torch, write_torch

__all__ = [
    "ConvertedStateDict",
    "StateDict",
    "check_complete",
    "convert_state_dict",
    "file_sha256",
    "load",
    "load_state_dict",
    "read_torch",
    "save",
    "to_state_dict",
    "write_torch",
]
