"""The command `lensjax simulate`, for use in a checkout."""

import sys

from lensjax.cli.simulate import run

if __name__ == "__main__":
    sys.exit(run())
