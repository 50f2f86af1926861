"""Trains on disks that are too small, enlarges them, and compares with a run that had enough space.

    python tools/studies/fill_disk.py

The folder of the run is a file system in memory (tmpfs) with 2 to 95 % of the space that a whole run needs,
so that the disk fills up at six different points, from the first checkpoint to the figures of the report. The
run passes if it stops with exit code 1 or 2 and one line, `lensjax verify` finds no damage, and the same
command on the enlarged disk gives the results of the run that had enough space. Requires Linux with user
namespaces (unshare). The result is printed as a Markdown table and as JSON.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill_runs import command, fingerprint, finish, print_table, write_images

from lensjax import workdir
from lensjax.cli import runner
from lensjax.cli.flags import Flag, parse_flags, usage
from lensjax.cli.verify import check

SHARES = (0.02, 0.1, 0.25, 0.45, 0.7, 0.95)
CHANGES = {"num_epochs": 3}
INSIDE = "LENSJAX_FILL_DISK_INSIDE"


FLAGS: dict[str, Flag] = {}
USAGE = usage(
    "Trains on disks of six sizes that are too small, then enlarges each disk and resumes.",
    ["python tools/studies/fill_disk.py"],
    FLAGS,
    "Requires Linux with user namespaces (unshare).",
)


def main(words: Sequence[str]) -> None:
    """Runs the study in its own namespace, and prints its result."""
    parse_flags(FLAGS, words)
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as folder:
        print_table(fill_disks(Path(folder)))


def fill_disks(folder: Path) -> list[dict[str, Any]]:
    """Trains on each small disk, and returns the rows of the table."""
    write_images(folder / "data" / "train", 12, 0)
    write_images(folder / "data" / "val", 4, 1)
    finish(command(folder, folder / "whole", CHANGES))
    expected = fingerprint(folder / "whole")
    space = sum(4096 * -(-path.stat().st_size // 4096) for path in (folder / "whole").rglob("*"))
    problems = []
    for share in SHARES:
        disk = folder / f"disk{share}"
        disk.mkdir()
        size = 4096 * round(share * space / 4096)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        words = command(folder, disk / "run", CHANGES)
        done = subprocess.run(words, capture_output=True, text=True)
        lines = done.stderr.strip().splitlines()
        found = []
        if done.returncode not in (1, 2) or len(lines) != 1:
            found.append(f"exit code {done.returncode}: {' / '.join(lines)[:400]}")
        if (disk / "run" / workdir.CONFIG).exists():
            found += [f"{each.path}: {each.text}" for each in check(disk / "run") if each.damaged]
        print(f"{size:,} bytes:", *lines[-1:], file=sys.stderr, flush=True)
        subprocess.run(["mount", "-o", f"remount,size={4 * space}", disk], check=True)
        finish(words)
        if fingerprint(disk / "run") != expected:
            found.append("the results differ from those of the run with enough space")
        problems += [f"{size:,} bytes: {each}" for each in found]
        subprocess.run(["umount", disk], check=True)
    failed = len({each.partition(":")[0] for each in problems})
    row = {"fault": "disk full", "trials": len(SHARES), "passed": len(SHARES) - failed}
    return [row | {"problems": problems}]


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="fill_disk"))
