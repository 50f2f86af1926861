"""Comparison of runs as a text table of at most 80 columns."""

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


def format_table(content: Mapping[str, Any]) -> str:
    """Table of the scores of each run, and of the differences of each pair with intervals and p-values.

    Args:
      content: content of comparison.json.
    """
    letters = [chr(ord("a") + index) for index in range(len(content["runs"]))]
    views = ", mean over eight views" if content["tta"] == "d4" else ""
    lines = [f"Comparison on {content['images']:,} {content['split']} images{views}"]
    lines += ["(95 % bootstrap intervals in parentheses, 1,000 resamples):"]
    lines += [f"  {letter}  {name}" for letter, name in zip(letters, content["runs"], strict=True)]
    for start in range(0, len(letters), 2):
        shown = range(start, min(start + 2, len(letters)))
        header = "".join(f"{letters[index]:<27}" for index in shown)
        lines += ["", f"  {'':<21}{header}".rstrip()]
        for name, title in TITLES.items():
            scores = "".join(f"{_score(content['figures'][index], name):<27}" for index in shown)
            lines += [f"  {title:<21}{scores}".rstrip()]
    for pair in content["pairs"]:
        label = f"{letters[pair['second']]} - {letters[pair['first']]}"
        lines += ["", f"  {label:<21}{'difference':<31}{'p, bootstrap':>12}{'DeLong':>10}"]
        for name, title in TITLES.items():
            entry = pair["differences"][name]
            low, high = entry["interval"]
            difference = f"{entry['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
            delong = _p_value(entry["delong"]["p"]) if "delong" in entry else ""
            row = f"  {title:<21}{difference:<31}{_p_value(entry['bootstrap_p']):>12}{delong:>10}"
            lines += [row.rstrip()]
    if len(letters) > 2:
        pairs = len(list(itertools.combinations(letters, 2)))
        lines += ["", f"p-values are not corrected for the {pairs} pairs tested"]
    return "\n".join(lines)


def _score(scores: Mapping[str, Any], name: str) -> str:
    low, high = scores["intervals"][name]
    return f"{scores[name]:.4f} ({low:.4f} to {high:.4f})"


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
