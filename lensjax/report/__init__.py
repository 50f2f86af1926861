"""Reports on trained classifiers: pages, figures, comparisons."""
