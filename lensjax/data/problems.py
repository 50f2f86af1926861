"""Reports all problems of an image source in one error."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lensjax.errors import UserError

MAX_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem with one file or folder.

    Attributes:
      name: path of the file or folder relative to the source.
      message: what is wrong and what to do.
      stops_reading: whether the layout is invalid, so that the images need not be read.
    """

    name: str
    message: str
    stops_reading: bool = False


def raise_problems(problems: Sequence[Problem], path: Path, total: int) -> None:
    """Raises one error that lists the first ten problems and states their total number.

    Args:
      problems: the problems; nothing is raised if there are none.
      path: path of the source.
      total: number of files that were checked.

    Raises:
      UserError: if there are problems.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise UserError(f"{path / problems[0].name}: {problems[0].message}")
    lines = [f"{path}: {len(problems):,} problems in {total:,} images:"]
    lines += [f"  {problem.name}: {problem.message}" for problem in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"  and {len(problems) - MAX_SHOWN:,} more")
    raise UserError("\n".join(lines))
