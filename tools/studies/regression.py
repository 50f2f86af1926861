"""Measures how well a network predicts properties of the substructure, with standard deviations."""

import dataclasses
import functools
import json
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ablation import interval, recipe
from ml_collections import ConfigDict
from scipy import stats

from lensjax import models, physics, simulation
from lensjax.cli import runner
from lensjax.cli.flags import Flag, choice, integer, parse_flags, usage
from lensjax.data.batches import iterate_batches
from lensjax.data.images import CLASSES, ImageSet, Split
from lensjax.data.preparation import num_channels, prepared_size
from lensjax.data.residuals import add_residuals
from lensjax.data.simulated import simulated_images
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.runtime.progress import format_duration, log
from lensjax.simulation import Scene
from lensjax.training.optimizer import build_optimizer
from lensjax.training.recipe import Recipe
from lensjax.training.state import TrainState, initial_state, update_ema
from lensjax.training.step import decode

LEVELS = (0.68, 0.95)
MAX_LOG_SIGMA = 6.0  # of a standardized quantity
SIMULATION_SEED = 0


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A property of the substructure of one class.

    Attributes:
      title: description with unit.
      label: name of the class whose images have the quantity.
      truth: maps scenes to true values.
    """

    title: str
    label: str
    truth: Callable[[Scene], np.ndarray]


def log10_mass(scene: Scene) -> np.ndarray:
    """Log10 of the total mass of the substructure, solar masses."""
    theta_E = np.sqrt((scene.masses[..., 0] ** 2).sum(-1))
    return np.log10(physics.einstein_mass(theta_E, convention="deeplensesim"))


def log10_largest_mass(scene: Scene) -> np.ndarray:
    """Log10 of the largest point mass, solar masses."""
    return np.log10(physics.einstein_mass(scene.masses[..., 0].max(-1), convention="deeplensesim"))


def line_length(scene: Scene) -> np.ndarray:
    """Distance between the ends of a vortex, arcsec."""
    # The rows without a mass are at the origin.
    points = np.where(scene.masses[..., :1] > 0, scene.masses[..., 1:], np.nan)
    return np.hypot(*(np.nanmax(points, 1) - np.nanmin(points, 1)).T)


AXION = {"axion_mass": Quantity("log10 axion mass, eV", "vort", lambda scene: np.log10(scene.axion_mass))}
COMMON = {
    "vortex_length": Quantity("vortex length, arcsec", "vort", line_length),
    "vortex_mass": Quantity("log10 vortex mass, solar masses", "vort", log10_mass),
    "subhalo_mass": Quantity("log10 total subhalo mass, solar masses", "sphere", log10_mass),
    "largest_subhalo": Quantity("log10 largest subhalo mass, solar masses", "sphere", log10_largest_mass),
}
QUANTITIES = {"common_test": COMMON, "varied": COMMON} | dict.fromkeys(
    ("model_1", "model_2", "model_3"), AXION
)

FLAGS = {
    "output": Flag("FILE", "Results (.json). If the file exists, its table is printed without training."),
    "source": choice(
        "PRESET", f"Preset: {', '.join(QUANTITIES)}; model_2 if not given.", list(QUANTITIES), "model_2"
    ),
    "train": integer("Training images of the classes with a quantity; 10,000 if not given.", 10_000, 2),
    "validation": integer("Validation images; 1,500 if not given.", 1_500, 2),
    "test": integer("Test images; 1,500 if not given.", 1_500, 10),
    "epochs": integer("Epochs; 30 if not given.", 30, 1),
    "seeds": integer("Number of networks with different seeds; 3 if not given.", 3, 1),
}
USAGE = usage(
    "Measures how well a network predicts properties of the substructure, with standard deviations.",
    ["python tools/studies/regression.py --source model_2 --output regression_2.json"],
    FLAGS,
    "The ResNet of configs/lens_fit.py predicts mean and logarithmic standard deviation of each quantity "
    "from the image and the residual of the lens fit. It minimizes the negative log-likelihood of a normal "
    "distribution. The best epoch is selected and the standard deviations are scaled on validation images.",
    {
        "model_1, model_2, model_3": "Log10 of the axion mass, from images of vortices.",
        "common_test, varied": "Length and mass of vortices, total mass and largest mass of subhalos.",
    },
)


def main(arguments: Sequence[str]) -> None:
    """Trains the networks, writes the results and prints the tables.

    Raises:
      UserError: if a flag is invalid, or the output has the results of other settings.
    """
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments, required=("output",)))
    output = Path(values.output).expanduser()
    settings = {name: value for name, value in vars(values).items() if name != "output"}
    if output.exists():
        record = json.loads(output.read_text(encoding="utf-8"))
        if record["settings"] != settings:
            raise UserError(f"{output} has the results of other settings; choose another --output")
    else:
        record = {"settings": settings} | measure(**settings)
        output.write_text(encode_json(record, indent=2) + "\n", encoding="utf-8")
    log.info("%s", table(record))


def measure(
    *, source: str, train: int, validation: int, test: int, epochs: int, seeds: int
) -> dict[str, Any]:
    """Trains and tests networks with several seeds; see `FLAGS` for the arguments."""
    config = recipe(source)
    config.update_from_flattened_dict({"optimizer.clip_norm": 1.0, "optimizer.ema_decay": 0.999})
    started = time.perf_counter()
    splits = {
        "train": load(config, source, "train", train),
        "validation": load(config, source, "validation", validation),
        "test": load(config, source, "test", test),
    }
    data_seconds = time.perf_counter() - started
    truths = splits["test"][1]
    constant = np.nanmean(splits["train"][1], axis=0)
    runs = []
    for run in train_networks(config, splits, epochs, seeds):
        means, sigmas = run.pop("means"), run.pop("sigmas")
        scores = {}
        for column, name in enumerate(QUANTITIES[source]):
            truth, mean, sigma = (each[:, column] for each in (truths, means, sigmas))
            known = ~np.isnan(truth)
            scores[name] = score(truth[known], mean[known], sigma[known], constant[column])
        runs.append(run | {"scores": scores})
    return {"device": jax.devices()[0].device_kind, "data_seconds": data_seconds, "runs": runs}


def load(config: ConfigDict, source: str, split: Split, number: int) -> tuple[jax.Array, np.ndarray]:
    """Inputs of the network and true values of `number` images of the classes with a quantity.

    Returns:
      Images and residuals `[n, height, width, 2]`, and values `[n, quantities]`, NaN for images without the
      quantity.
    """
    quantities = QUANTITIES[source].values()
    used = [label for label, name in enumerate(CLASSES) if any(q.label == name for q in quantities)]
    total = len(CLASSES) * -(-number // len(used))
    images = simulated_images(
        source, split=split, num_images=total, seed=SIMULATION_SEED, image_size=config.data.image_size
    )
    scenes = simulation.draw_scenes(source, seed=SIMULATION_SEED, split=split, num_images=total)
    rows = np.flatnonzero(np.isin(images.labels, used))[:number]
    scenes = jax.tree.map(lambda leaf: leaf[rows], scenes)
    assert (scenes.label == images.labels[rows]).all()
    truths = np.full((number, len(quantities)), np.nan)
    for column, quantity in enumerate(quantities):
        of_class = scenes.label == CLASSES.index(quantity.label)
        truths[of_class, column] = quantity.truth(jax.tree.map(lambda leaf, of=of_class: leaf[of], scenes))
    fitted = add_residuals(images.subset(rows), config.data.fit, name=split, test=False)
    return network_inputs(Recipe.from_config(config), fitted), truths


def network_inputs(preparation: Recipe, images: ImageSet) -> jax.Array:
    """Prepared images with residuals."""
    prepare = jax.jit(lambda batch: preparation.prepare(decode(batch)))
    parts = [prepare(dict(batch)) for batch in iterate_batches(images, np.arange(len(images)), 500)]
    return jnp.concatenate(parts)[: len(images)]


def train_networks(
    config: ConfigDict, splits: Mapping[str, tuple[jax.Array, np.ndarray]], epochs: int, seeds: int
) -> Iterator[dict[str, Any]]:
    """Trains networks with several seeds.

    Yields:
      For each seed: the best epoch, the seconds of training, the factor of the standard deviations, and
      means and standard deviations for the test images.
    """
    truths = splits["train"][1]
    center, spread = np.nanmean(truths, axis=0), np.nanstd(truths, axis=0)
    inputs = {name: inputs for name, (inputs, _) in splits.items()}
    targets = {name: jnp.asarray((truths - center) / spread) for name, (_, truths) in splits.items()}
    model = models.build(config, num_classes=2 * len(center))
    num_steps = len(truths) // min(config.batch_size, len(truths))
    optimizer = build_optimizer(config.optimizer, epochs * num_steps)
    train = functools.partial(train_epoch, model, optimizer, Recipe.from_config(config), config.batch_size)

    @jax.jit
    def answer(variables: Any, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = cast(models.Outputs, model.apply(variables, inputs, train=False))
        return split_outputs(outputs.logits)

    def loss_of(variables: Any) -> float:
        mean, log_sigma = answer(variables, inputs["validation"])
        return float(mean_nll(mean, log_sigma, targets["validation"]))

    for seed in range(seeds):
        started = time.perf_counter()
        key, initial_key = jax.random.split(jax.random.key(seed))
        state = initial_state(
            model,
            optimizer,
            initial_key,
            image_size=prepared_size(config.data.image_size, config.preparation.crop),
            channels=num_channels(config.data.fit),
            terms=(),
            with_ema=True,
        )
        best = (np.inf, 0, state.ema)
        for epoch in range(1, epochs + 1):
            state = train(state, jax.random.fold_in(key, epoch), inputs["train"], targets["train"])
            loss = loss_of(state.ema)
            if loss < best[0]:
                best = (loss, epoch, state.ema)
            log.info("seed %d, epoch %d: validation loss %.4f", seed, epoch, loss)
        if not best[1]:
            raise UserError("the validation loss was never finite; use more training images")
        mean, log_sigma = map(np.asarray, answer(best[2], inputs["validation"]))
        scale = sigma_scale(np.asarray(targets["validation"]), mean, np.exp(log_sigma))
        mean, log_sigma = map(np.asarray, answer(best[2], inputs["test"]))
        seconds = time.perf_counter() - started
        log.info("seed %d: best epoch %d, %s", seed, best[1], format_duration(seconds))
        yield {
            "seed": seed,
            "best_epoch": best[1],
            "seconds": seconds,
            "sigma_scale": scale.tolist(),
            "means": center + spread * mean,
            "sigmas": spread * scale * np.exp(log_sigma),
        }


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def train_epoch(
    model: models.ClassifierModule,
    optimizer: optax.GradientTransformation,
    augmentation: Recipe,
    batch_size: int,
    state: TrainState,
    key: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
) -> TrainState:
    """One epoch of training; the images of an incomplete batch are left out."""
    order_key, key = jax.random.split(key)
    size = min(batch_size, len(inputs))
    order = jax.random.permutation(order_key, len(inputs))[: len(inputs) // size * size].reshape(-1, size)

    def step(state: TrainState, rows: jax.Array) -> tuple[TrainState, None]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), size)
        images = augmentation.augment(inputs[rows], keys)

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            outputs, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
            mean, log_sigma = split_outputs(outputs.logits)
            return mean_nll(mean, log_sigma, targets[rows]), updated["batch_stats"]

        with jax.default_matmul_precision(augmentation.precision):
            gradients, batch_stats = jax.grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new = {"params": optax.apply_updates(state.params, updates), "batch_stats": batch_stats}
        ema = update_ema(state.ema, new, state.step, augmentation.ema_decay)
        return state.replace(step=state.step + 1, opt_state=opt_state, ema=ema, **new), None

    return jax.lax.scan(step, state, order)[0]


def split_outputs(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means and logarithmic standard deviations, which are bounded."""
    mean, log_sigma = jnp.split(outputs, 2, axis=-1)
    return mean, MAX_LOG_SIGMA * jnp.tanh(log_sigma / MAX_LOG_SIGMA)


def mean_nll(mean: jax.Array, log_sigma: jax.Array, target: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of normal distributions; NaN targets are excluded."""
    known = ~jnp.isnan(target)
    deviation = jnp.where(known, target - mean, 0.0)  # avoids a gradient of NaN
    nll = 0.5 * (deviation * jnp.exp(-log_sigma)) ** 2 + log_sigma + 0.5 * jnp.log(2 * jnp.pi)
    return jnp.where(known, nll, 0.0).sum() / jnp.maximum(known.sum(), 1)


def sigma_scale(truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Factor of the standard deviations of each quantity that maximizes the likelihood."""
    return np.sqrt(np.nanmean(((truth - mean) / sigma) ** 2, axis=0))


def score(truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray, constant: float) -> dict[str, Any]:
    """Errors and coverage of the predictions of a quantity, for all images and by decile of the truth.

    Args:
      truth: true values.
      mean, sigma: predicted means and standard deviations.
      constant: prediction to compare with, the same for all images.
    """

    def errors(rows: np.ndarray) -> dict[str, Any]:
        error = np.abs(truth - mean)[rows]
        inside = {f"coverage_{100 * level:.0f}": stats.norm.ppf((1 + level) / 2) for level in LEVELS}
        return {
            "images": len(error),
            "mae": float(error.mean()),
            "rmse": float(np.sqrt((error**2).mean())),
            "constant_mae": float(np.abs(truth[rows] - constant).mean()),
            "sigma": float(sigma[rows].mean()),
            **{name: float((error <= width * sigma[rows]).mean()) for name, width in inside.items()},
        }

    r2 = 1 - ((truth - mean) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    deciles = []
    for rows in np.array_split(np.argsort(truth), 10):
        deciles.append({"low": float(truth[rows].min()), "high": float(truth[rows].max()), **errors(rows)})
    return {**errors(np.arange(len(truth))), "r2": float(r2), "deciles": deciles}


def table(record: Mapping[str, Any]) -> str:
    """Markdown tables of the results: all images, and deciles of each quantity."""
    names = ("mae", "constant_mae", "rmse", "r2", *(f"coverage_{100 * level:.0f}" for level in LEVELS))
    head = "mean absolute error | of a constant | RMSE | R² | in 68 % interval | in 95 % interval"
    lines = [f"| quantity | images | {head} |", "|---|" + "---|" * (1 + len(names))]
    quantities, runs = QUANTITIES[record["settings"]["source"]], record["runs"]
    for name, quantity in quantities.items():
        of_runs = [run["scores"][name] for run in runs]
        cells = [cell([each[column] for each in of_runs]) for column in names]
        lines.append(f"| {quantity.title} | {of_runs[0]['images']:,} | {' | '.join(cells)} |")
    names = ("mae", "constant_mae", "sigma", "coverage_68", "coverage_95")
    head = "mean absolute error | of a constant | mean sigma | in 68 % interval | in 95 % interval"
    for name, quantity in quantities.items():
        lines += ["", f"| {quantity.title} | {head} |", "|---|" + "---|" * len(names)]
        for deciles in zip(*(run["scores"][name]["deciles"] for run in runs), strict=True):
            cells = [cell([each[column] for each in deciles]) for column in names]
            lines.append(f"| {deciles[0]['low']:.2f} to {deciles[0]['high']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Mean over the seeds, with the half-width of its 95 % interval if they differ."""
    mean, half = interval(values)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if half > 0 else "")


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="regression"))
