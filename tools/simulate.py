"""The command `lensjax simulate`, for use in a checkout."""

import sys

from lensjax.main import run

if __name__ == "__main__":
    sys.exit(run(["simulate", *sys.argv[1:]]))
