"""How good a trained classifier is, and what it says of new images."""
