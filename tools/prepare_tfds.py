"""The command `lensjax prepare-tfds`, for use in a checkout."""

import sys

from lensjax.main import entry

if __name__ == "__main__":
    entry(["prepare-tfds", *sys.argv[1:]])
