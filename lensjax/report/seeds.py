"""Joint evaluation of runs that differ only in their seeds: mean, scatter and ensemble."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.evaluation.scores import (
    AUC_NAMES,
    LEVEL,
    RESAMPLES,
    SCORE_NAMES,
    SEED,
    bootstrap_scores,
    compute_scores,
    percentile_intervals,
    resample_weights,
)
from lensjax.evaluation.types import Labels, Probabilities
from lensjax.json_text import encode_json
from lensjax.prediction.trained_model import PredictionOptions, TrainedModel
from lensjax.workdir import REPORT, write_atomically

RESULT = "seeds.json"


def evaluate_seeds(
    workdir: Path, runs: Sequence[TrainedModel], images: ImageSet, *, split: Split, tta: str = "none"
) -> str:
    """Evaluates runs with different seeds on a split and writes seeds.json to the report folder.

    For the test split without test-time augmentation, the folder is report/; otherwise it is a subfolder
    named after the split and the augmentation.

    Args:
      workdir: the common folder of the runs.
      runs: best epoch of each seed.
      images: images of the split.
      split: name of the split.
      tta: "none" or "d4".

    Returns:
      A table of the scores and the path of the file, for the terminal.
    """
    options = PredictionOptions(d4=tta == "d4")
    probabilities = [run.predict(images, options).probabilities for run in runs]
    content = {
        "split": split,
        "images": dict(zip(CLASSES, images.class_counts(), strict=True)),
        "tta": tta,
        "seeds": [run.config.seed for run in runs],
        "best_epochs": [run.best_epoch for run in runs],
        **summarize_seeds(images.labels, probabilities),
    }
    parts = ["" if split == "test" else split, "" if tta == "none" else tta]
    folder = workdir.joinpath(REPORT, *filter(None, parts))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RESULT, encode_json(content, indent=2) + "\n")
    return f"{format_table(content)}\n\nAll scores: {folder / RESULT}"


def summarize_seeds(labels: Labels, probabilities: Sequence[Probabilities]) -> dict[str, Any]:
    """Scores of each seed, their mean and scatter, and the scores of the ensemble.

    Args:
      labels: class index of each image.
      probabilities: class probabilities from each of at least two seeds, for the same images.

    Returns:
      `figures`: scores of each seed, see `lensjax.evaluation.scores`; `mean`, `standard_deviation` (of a
      single seed, with n - 1) and `intervals` (of the mean, see `bootstrap_mean`), by score; `ensemble`:
      scores of the probabilities averaged over the seeds, with `intervals` from resampled images only;
      `bootstrap`: how the intervals were computed.
    """
    scores = [compute_scores(labels, each) for each in probabilities]
    values = {name: np.array([score[name] for score in scores]) for name in SCORE_NAMES}
    weights = resample_weights(labels)
    samples = [bootstrap_scores(labels, each, weights) for each in probabilities]
    seed_weights = resample_seeds(len(probabilities))
    mean_samples = {
        name: bootstrap_mean(np.stack([sample[name] for sample in samples]), seed_weights)
        for name in SCORE_NAMES
    }
    ensemble = np.mean(probabilities, axis=0)
    return {
        "figures": scores,
        "mean": {name: float(each.mean()) for name, each in values.items()},
        "standard_deviation": {name: float(each.std(ddof=1)) for name, each in values.items()},
        "intervals": percentile_intervals(mean_samples),
        "ensemble": {
            **compute_scores(labels, ensemble),
            "intervals": percentile_intervals(bootstrap_scores(labels, ensemble, weights)),
        },
        "bootstrap": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            "drawn": "images: multinomial counts within each class, the same for all seeds; seeds: n - 1 of "
            "n with replacement; percentiles of the mean. Ensemble: images only",
        },
    }


def resample_seeds(
    number: int, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Integer[np.ndarray, "resamples seeds"]:
    """Multiplicity of each seed in each bootstrap resample of n - 1 out of n seeds, with replacement.

    Resamples of n seeds would scatter too little: the mean of n draws from n values has variance
    s^2 (n - 1) / n^2, whereas the mean of n - 1 draws has s^2 / n, the variance of a mean of n seeds.

    Args:
      number: number of seeds, at least two.
      resamples: number of resamples.
      seed: random seed; the draws are independent of those of `resample_weights`.

    Reference: Rao & Wu 1988, "Resampling inference with complex survey data".
    """
    generator = np.random.default_rng((seed, number))
    return generator.multinomial(number - 1, np.full(number, 1 / number), size=resamples)


def bootstrap_mean(
    samples: Float[np.ndarray, "seeds resamples"], counts: Integer[np.ndarray, "resamples seeds"]
) -> Float[np.ndarray, " resamples"]:
    """Bootstrap samples of a mean over seeds, with images and seeds resampled independently.

    Args:
      samples: a score of each seed on each resample of the images.
      counts: from `resample_seeds`.

    Reference: Owen 2007, "The pigeonhole bootstrap".
    """
    return (counts * samples.T).sum(1) / counts.sum(1)


def format_table(content: Mapping[str, Any]) -> str:
    """Text table of AUC and accuracy for each seed, their mean and the ensemble, at most 80 columns wide.

    Args:
      content: content of seeds.json.
    """
    columns = (*AUC_NAMES, "accuracy")
    views = ", eight-view mean" if content["tta"] == "d4" else ""
    total = f"{sum(content['images'].values()):,}"
    number = len(content["seeds"])
    names = ["AUC: " + CLASSES[0], *CLASSES[1:], "mean", "accuracy"]
    lines = [
        f"{number} seeds, each at its best epoch, on {total} {content['split']} images{views}",
        f"  {'seed':<12}{'epoch':>6}{''.join(f'{name:>10}' for name in names)}",
    ]

    def row(name: object, epoch: object, scores: Mapping[str, float], form: str = "10.4f") -> str:
        return f"  {name:<12}{epoch:>6}{''.join(f'{scores[column]:{form}}' for column in columns)}"

    for seed in zip(content["seeds"], content["best_epochs"], content["figures"], strict=True):
        lines += [row(*seed)]
    low, high = ({name: content["intervals"][name][end] for name in columns} for end in (0, 1))
    lines += [
        "",
        row("mean", "", content["mean"]),
        row("deviation", "", content["standard_deviation"], "10.2g"),
        row("95 % from", "", low),
        row("95 % to", "", high),
        row("ensemble", "", content["ensemble"]),
        "",
        "deviation: standard deviation of a single seed. 95 %: interval of the mean from",
        "1,000 bootstrap resamples of images and seeds. ensemble: probabilities averaged",
        "over all seeds",
    ]
    return "\n".join(lines)
