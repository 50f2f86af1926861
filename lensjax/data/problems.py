"""Everything that is wrong with a source of images, told at once."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lensjax.errors import UserError

SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with one file or folder.

    Attributes:
      name: the file or folder, below the source.
      message: what is wrong and what to do.
      stops_reading: the layout itself is wrong, so that reading the images is no use.
    """

    name: str
    message: str
    stops_reading: bool = False


def raise_problems(problems: Sequence[Problem], path: Path, total: int) -> None:
    """Raises one error that names the first ten problems and says how many there are.

    Args:
      problems: what was found; nothing is raised when there are none.
      path: where the names start.
      total: how many files were looked at.

    Raises:
      UserError: there are problems.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise UserError(f"{path / problems[0].name}: {problems[0].message}")
    lines = [f"{path}: {len(problems):,} problems in {total:,} images:"]
    lines += [f"  {problem.name}: {problem.message}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN:,} more")
    raise UserError("\n".join(lines))
