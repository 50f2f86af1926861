"""A comparison of runs as text, within 80 columns."""

import itertools
from collections.abc import Mapping
from typing import Any

from lensjax.data.images import CLASSES, DISPLAY_NAMES

TITLES = {
    **{f"auc_{name}": f"AUC {shown}" for name, shown in zip(CLASSES, DISPLAY_NAMES, strict=True)},
    "auc": "AUC mean",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1 mean",
    "ece": "calibration error",
    "brier": "Brier score",
    "nll": "log loss",
}


def table(content: Mapping[str, Any]) -> str:
    """The figures of each run and the differences of each two, with intervals and p-values.

    Args:
      content: what comparison.json holds.
    """
    letters = [chr(ord("a") + index) for index in range(len(content["runs"]))]
    views = ", mean over eight views" if content["tta"] == "d4" else ""
    lines = [f"On the same {content['images']:,} {content['split']} images{views},"]
    lines += ["in brackets 95 % intervals of 1,000 bootstrap resamples:"]
    lines += [f"  {letter}  {name}" for letter, name in zip(letters, content["runs"], strict=True)]
    for start in range(0, len(letters), 2):
        shown = range(start, min(start + 2, len(letters)))
        head = "".join(f"{letters[index]:<27}" for index in shown)
        lines += ["", f"  {'':<21}{head}".rstrip()]
        for name, title in TITLES.items():
            figures = "".join(f"{_figure(content['figures'][index], name):<27}" for index in shown)
            lines += [f"  {title:<21}{figures}".rstrip()]
    for pair in content["pairs"]:
        which = f"{letters[pair['second']]} - {letters[pair['first']]}"
        lines += ["", f"  {which:<21}{'difference':<31}{'p, bootstrap':>12}{'DeLong':>10}"]
        for name, title in TITLES.items():
            found = pair["differences"][name]
            low, high = found["interval"]
            figure = f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
            delong = _p(found["delong"]["p"]) if "delong" in found else ""
            row = f"  {title:<21}{figure:<31}{_p(found['bootstrap_p']):>12}{delong:>10}"
            lines += [row.rstrip()]
    if len(letters) > 2:
        pairs = len(list(itertools.combinations(letters, 2)))
        lines += ["", f"p-values are of each pair alone; {pairs} pairs were looked at"]
    return "\n".join(lines)


def _figure(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures["intervals"][name]
    return f"{figures[name]:.4f} ({low:.4f} to {high:.4f})"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
