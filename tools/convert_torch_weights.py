"""The command `lensjax convert-weights`, for use in a checkout."""

import sys

from lensjax.main import run

if __name__ == "__main__":
    sys.exit(run(["convert-weights", *sys.argv[1:]]))
