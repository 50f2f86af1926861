"""Process-wide settings and services: caches, host memory, logging and progress bars."""
