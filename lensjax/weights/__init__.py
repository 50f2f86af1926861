"""Parameters from and to PyTorch: files, tables of names, and strict conversion by them.

A PyTorch file becomes variables in two steps, `convert(read_torch(path).arrays)`, and variables one again
by `write_torch(path, to_torch(variables, architecture))`. Between the two they lie in files of lensjax's
own, see `save` and `load`.
"""

from lensjax.weights.convert import Converted, check_whole, convert, from_torch, to_torch
from lensjax.weights.store import load, save
from lensjax.weights.torch_files import StateDict, read_torch, sha256_of, write_torch

__all__ = [
    "Converted",
    "StateDict",
    "check_whole",
    "convert",
    "from_torch",
    "load",
    "read_torch",
    "save",
    "sha256_of",
    "to_torch",
    "write_torch",
]
