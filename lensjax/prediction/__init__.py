"""Prediction with trained classifiers: arrays, image files, attribution and export."""
