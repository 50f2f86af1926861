"""The command `lensjax convert-weights`, for use in a checkout."""

import sys

from lensjax.cli.convert_weights import run

if __name__ == "__main__":
    sys.exit(run())
