"""The command `lensjax export`, for use in a checkout."""

import sys

from lensjax.main import entry

if __name__ == "__main__":
    entry(["export", *sys.argv[1:]])
