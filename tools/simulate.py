"""The command `lensjax simulate`, for use in a checkout."""

import sys

from lensjax.main import entry

if __name__ == "__main__":
    entry(["simulate", *sys.argv[1:]])
