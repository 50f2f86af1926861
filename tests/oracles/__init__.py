"""Independent implementations that the tests hold lensjax to."""
