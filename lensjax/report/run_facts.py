"""How a run was made: its settings, its versions, the command."""

import dataclasses
import datetime
import json
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lensjax.config import default_config, flatten
from lensjax.data.images import Split

PACKAGES = ("lensjax", "jax", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Facts:
    """How a run and its report were made.

    Attributes:
      config: the whole config of the run.
      name: of the run's folder.
      split: the name of the images reported on.
      tta: "none" or "d4".
      again: the command that makes this report again.
      typed: the command that was typed; None where it was no command of lensjax.
      date: of the report.
      versions: of Python and the packages, by name.
      device: what the answers were computed on.
    """

    config: ConfigDict
    name: str
    split: Split
    tta: str
    again: str
    typed: str | None
    date: str
    versions: dict[str, str]
    device: str

    @property
    def settings(self) -> dict[str, str]:
        """The fields of the config that are not as in `lensjax.config.default_config`."""
        usual = flatten(default_config().to_dict())
        return {
            name: json.dumps(value)
            for name, value in flatten(self.config.to_dict()).items()
            if value != usual.get(name)
        }


def facts(config: ConfigDict, workdir: Path, *, split: Split, tta: str = "none") -> Facts:
    """What there is to say of a run and of this process.

    Args:
      config: the whole config of the run.
      workdir: the folder of the run.
      split: the name of the images reported on.
      tta: "none" or "d4".
    """
    words = ["--mode", "evaluate", "--workdir", str(workdir)]
    words += [] if split == "test" else ["--split", split]
    words += [] if tta == "none" else ["--tta", tta]
    command = ["python", "-m", "lensjax.main"]
    program = Path(sys.argv[0])
    is_ours = program.name == "lensjax" or program.parts[-2:] == ("lensjax", "main.py")
    devices = jax.local_devices()
    return Facts(
        config=config,
        name=workdir.absolute().name,
        split=split,
        tta=tta,
        again=shlex.join([*command, *words]),
        typed=shlex.join([*command, *sys.argv[1:]]) if is_ours else None,
        date=datetime.date.today().isoformat(),
        versions={"Python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        device=f"{len(devices)} x {devices[0].device_kind}",
    )
