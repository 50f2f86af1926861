"""Lens models of telescope images."""
