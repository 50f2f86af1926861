"""The command `lensjax convert-weights`, for use in a checkout."""

import sys

from lensjax.main import entry

if __name__ == "__main__":
    entry(["convert-weights", *sys.argv[1:]])
