"""Fitting a classifier: state, steps, devices, checkpoints and the loop around them."""
