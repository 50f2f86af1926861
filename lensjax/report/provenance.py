"""Provenance of a report: settings, software versions and command."""

import dataclasses
import datetime
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import jax
from ml_collections import ConfigDict

import lensjax
from lensjax.config import default_config, flatten
from lensjax.data.images import Split
from lensjax.json_text import encode_json
from lensjax.workdir import CONFIG, read_config

PACKAGES = ("jax", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Provenance of a run and its report.

    Attributes:
      config: the full config of the run.
      name: name of the run's folder.
      split: name of the split.
      tta: "none" or "d4".
      report_command: command that reproduces the report.
      original_command: command that made the report; None if it was not a lensjax command.
      date: date of the report.
      versions: versions of Python and the packages, by name.
      device: number and kind of the devices.
    """

    config: ConfigDict
    name: str
    split: Split
    tta: str
    report_command: str
    original_command: str | None
    date: str
    versions: dict[str, str]
    device: str

    @property
    def settings(self) -> dict[str, str]:
        """Fields of the config that differ from `lensjax.config.default_config`."""
        defaults = flatten(default_config().to_dict())
        return {
            name: encode_json(value)
            for name, value in flatten(self.config.to_dict()).items()
            if value != defaults.get(name)
        }


def collect_provenance(config: ConfigDict, workdir: Path, *, split: Split, tta: str = "none") -> Provenance:
    """Collects the provenance of a report made by this process.

    Args:
      config: the full config of the run.
      workdir: the run's folder.
      split: name of the split.
      tta: "none" or "d4".
    """
    words = ["--mode", "evaluate", "--workdir", str(workdir)]
    words += [] if split == "test" else ["--split", split]
    words += [] if tta == "none" else ["--tta", tta]
    moved = (workdir / CONFIG).is_file() and read_config(workdir).data.source != config.data.source
    words += ["--config.data.source", config.data.source] if moved else []
    command = ["python", "-m", "lensjax.main"]
    program = Path(sys.argv[0])
    is_lensjax = program.name == "lensjax" or program.parts[-2:] == ("lensjax", "main.py")
    devices = jax.local_devices()
    versions = {"Python": platform.python_version(), "lensjax": lensjax.__version__}
    return Provenance(
        config=config,
        name=workdir.absolute().name,
        split=split,
        tta=tta,
        report_command=shlex.join([*command, *words]),
        original_command=shlex.join([*command, *sys.argv[1:]]) if is_lensjax else None,
        date=datetime.date.today().isoformat(),
        versions=versions | {name: metadata.version(name) for name in PACKAGES},
        device=f"{len(devices)} x {devices[0].device_kind}",
    )
