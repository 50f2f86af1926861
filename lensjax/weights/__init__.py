"""Parameters from and to PyTorch: tables of names, and strict conversion by them."""

from lensjax.weights.convert import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
