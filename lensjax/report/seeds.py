"""What several runs that differ in their seeds alone say together: means, scatter, the ensemble."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.evaluation.scores import (
    AUCS,
    LEVEL,
    NAMES,
    RESAMPLES,
    SEED,
    bootstrap,
    intervals,
    resample_weights,
    scores,
)
from lensjax.prediction.trained import Manner, Trained
from lensjax.workdir import REPORT, write_atomically

RESULT = "seeds.json"


def assess_seeds(
    workdir: Path, runs: Sequence[Trained], images: ImageSet, *, split: Split, tta: str = "none"
) -> str:
    """Writes report/seeds.json, for other splits and means over views in a folder of report/ of that name.

    Args:
      workdir: the folder of all runs.
      runs: the best epoch of each seed.
      images: of the split.
      split: its name.
      tta: "none" or "d4".

    Returns:
      A table of the figures and where the file lies, for the terminal.
    """
    probabilities = [run.predict(images, Manner(d4=tta == "d4")).probabilities for run in runs]
    content = {
        "split": split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "tta": tta,
        "seeds": [run.config.seed for run in runs],
        "best_epochs": [run.best_epoch for run in runs],
        **together(images.labels, probabilities),
    }
    parts = ["" if split == "test" else split, "" if tta == "none" else tta]
    folder = workdir.joinpath(REPORT, *filter(None, parts))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RESULT, json.dumps(content, indent=2) + "\n")
    return f"{table(content)}\n\nAll figures: {folder / RESULT}"


def together(
    labels: Integer[np.ndarray, " n"], probabilities: Sequence[Float[np.ndarray, "n classes"]]
) -> dict[str, Any]:
    """The figures of each seed, what they have in common, and those of the ensemble.

    Args:
      labels: index of each image's class.
      probabilities: the answers of each seed, at least two, to the same images.

    Returns:
      `figures`, those of `lensjax.evaluation.scores` for each seed; by their names `mean`,
      `standard_deviation` (of one seed, with n - 1) and `intervals` (of the mean, see `draws_of_the_mean`);
      `ensemble`, the figures of the mean of the seeds' probabilities, with `intervals` that count the images
      alone; and `bootstrap`, how the intervals were made.
    """
    figures = [scores(labels, each) for each in probabilities]
    values = {name: np.array([one[name] for one in figures]) for name in NAMES}
    weights = resample_weights(labels)
    drawn = [bootstrap(labels, each, weights) for each in probabilities]
    seeds = resampled_seeds(len(probabilities))
    of_mean = {
        name: draws_of_the_mean(np.stack([one[name] for one in drawn]), seeds) for name in NAMES
    }
    mean_answer = np.mean(probabilities, axis=0)
    return {
        "figures": figures,
        "mean": {name: float(each.mean()) for name, each in values.items()},
        "standard_deviation": {name: float(each.std(ddof=1)) for name, each in values.items()},
        "intervals": intervals(of_mean),
        "ensemble": {
            **scores(labels, mean_answer),
            "intervals": intervals(bootstrap(labels, mean_answer, weights)),
        },
        "bootstrap": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            "drawn": "the same resample of the images, multinomial counts within each class, for all "
            "seeds; of the seeds one fewer than there are, with replacement; percentiles of the mean. "
            "Of the ensemble: images alone",
        },
    }


def resampled_seeds(
    number: int, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Integer[np.ndarray, "resamples seeds"]:
    """How often each bootstrap resample has each seed: one fewer than there are, drawn with replacement.

    As many as there are would scatter too little: the mean of n draws from n values has the variance
    s^2 (n - 1) / n^2, that of n - 1 draws s^2 / n, which is that of a mean of n seeds.

    Args:
      number: of seeds, at least two.
      resamples: how many.
      seed: of the draws, other ones than those of `resample_weights`.

    Reference: Rao & Wu 1988, "Resampling inference with complex survey data".
    """
    generator = np.random.default_rng((seed, number))
    return generator.multinomial(number - 1, np.full(number, 1 / number), size=resamples)


def draws_of_the_mean(
    drawn: Float[np.ndarray, "seeds resamples"], counts: Integer[np.ndarray, "resamples seeds"]
) -> Float[np.ndarray, " resamples"]:
    """Resamples of a mean over seeds in which images and seeds are both drawn, each by itself.

    Args:
      drawn: a figure of each seed on each resample of the images.
      counts: made by `resampled_seeds`.

    Reference: Owen 2007, "The pigeonhole bootstrap".
    """
    return (counts * drawn.T).sum(1) / counts.sum(1)


def table(content: Mapping[str, Any]) -> str:
    """The AUC and accuracy of each seed and of all, for the terminal, within 80 columns.

    Args:
      content: what seeds.json holds.
    """
    columns = (*AUCS, "accuracy")
    views = ", eight views each" if content["tta"] == "d4" else ""
    total = f"{sum(content['images'].values()):,}"
    number = len(content["seeds"])
    names = ["AUC: " + CLASSES[0], *CLASSES[1:], "mean", "accuracy"]
    lines = [
        f"{number} seeds, each at its best epoch, on {total} {content['split']} images{views}",
        f"  {'seed':<12}{'epoch':>6}{''.join(f'{name:>10}' for name in names)}",
    ]

    def row(name: object, epoch: object, figures: Mapping[str, float], form: str = "10.4f") -> str:
        return f"  {name:<12}{epoch:>6}{''.join(f'{figures[column]:{form}}' for column in columns)}"

    for one in zip(content["seeds"], content["best_epochs"], content["figures"], strict=True):
        lines += [row(*one)]
    low, high = ({name: content["intervals"][name][end] for name in columns} for end in (0, 1))
    lines += [
        "",
        row("mean", "", content["mean"]),
        row("deviation", "", content["standard_deviation"], "10.2g"),
        row("95 % from", "", low),
        row("95 % to", "", high),
        row("ensemble", "", content["ensemble"]),
        "",
        "deviation: standard deviation of one seed. 95 %: interval of the mean, of 1,000",
        "bootstrap resamples of images and seeds. ensemble: the mean of all seeds'",
        "probabilities, image by image",
    ]
    return "\n".join(lines)
