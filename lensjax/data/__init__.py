"""Data sets of lens images: sources, splits and batches."""
