"""lensjax: dark-matter substructure from images of strong gravitational lenses, in JAX."""

__version__ = "0.1.0"
