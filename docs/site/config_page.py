"""Writes docs/config.md from the table of config fields: `python docs/site/config_page.py`."""

from pathlib import Path

from lensjax.cli.help import fields_page

(Path(__file__).parents[1] / "config.md").write_text(fields_page())
