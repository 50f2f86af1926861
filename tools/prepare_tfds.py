"""The command `lensjax prepare-tfds`, for use in a checkout."""

import sys

from lensjax.cli.prepare_tfds import run

if __name__ == "__main__":
    sys.exit(run())
