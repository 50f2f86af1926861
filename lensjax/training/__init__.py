"""Training of classifiers: state, steps, devices, checkpoints and the training loop."""
