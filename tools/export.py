"""The command `lensjax export`, for use in a checkout."""

import sys

from lensjax.main import run

if __name__ == "__main__":
    sys.exit(run(["export", *sys.argv[1:]]))
