"""Reports on trained classifiers: pages, figures and comparisons."""
