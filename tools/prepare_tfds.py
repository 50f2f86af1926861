"""The command `lensjax prepare-tfds`, for use in a checkout."""

import sys

from lensjax.main import run

if __name__ == "__main__":
    sys.exit(run(["prepare-tfds", *sys.argv[1:]]))
