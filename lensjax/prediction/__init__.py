"""A trained classifier, on the files that people have."""
