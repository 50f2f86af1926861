"""Independent implementations against which the tests compare lensjax."""
