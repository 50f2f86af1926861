"""The command `lensjax export`, for use in a checkout."""

import sys

from lensjax.cli.export import run

if __name__ == "__main__":
    sys.exit(run())
