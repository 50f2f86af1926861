"""Metrics, calibration and statistical tests of classifier probabilities."""
