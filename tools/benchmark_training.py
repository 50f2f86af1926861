"""Times training steps beside the reference's own loop in PyTorch, in turns in one run.

  python tools/benchmark_training.py

  --models NAME,..  baseline, pinn, lens_fit (all if not given)
  --batch N         images in a step (32 if not given)
  --steps N         steps in a round (4 if not given)
  --rounds N        rounds; the least time of each contestant counts (3 if not given)
  --output FILE     also write the figures as JSON

Full-size models on 150-pixel images in float32. Contestants: lensjax one step at a time, as it
trains on a CPU; the same steps in one compiled loop over images on the device, as it trains on
accelerators; PyTorch, the reference's loop: images from .npy files by a DataLoader of 4 workers,
rotation by torchvision's definition, AdamW, .item() of the loss in every step (baseline and
pinn, where torch is installed); PyTorch with the images in memory, channels last.
Exit codes: 0 done; 2 something in the command is wrong.
"""

import functools
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from lensjax import command_line, models, program
from lensjax.console import log
from lensjax.data.images import ImageSet
from lensjax.data.preparation import num_channels, prepare, prepared_size
from lensjax.errors import UserError
from lensjax.training import engine, optimizer
from lensjax.training.losses import term_names
from lensjax.training.parallel import AXIS, replicated
from lensjax.training.state import initial_state
from lensjax.training.step import train_step

ROOT = Path(__file__).parent.parent
MODELS = ("baseline", "pinn", "lens_fit")
SIZE = 150
Contestant = Callable[[], Any]


def main(arguments: Sequence[str]) -> None:
    """Runs the comparison.

    Raises:
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_list("models", list(MODELS), "", flag_values=values)
    flags.DEFINE_integer("batch", 32, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 4, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    program.read_flags(values, arguments)
    for name in values.models:
        if name not in MODELS:
            raise UserError(f"--models {name}: not one of {', '.join(MODELS)}")
    device = jax.local_devices()[0]
    log.info("%s, %d cores, batch %d", device.device_kind, os.cpu_count() or 1, values.batch)
    figures: dict[str, Any] = {
        "device": device.device_kind,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "batch": values.batch,
        "images_per_second": {},
    }
    for name in values.models:
        log.info("\n%s", name)
        config = command_line.load_config(str(ROOT / "configs" / f"{name}.py"))
        config.batch_size = values.batch
        number = values.batch * values.steps
        with tempfile.TemporaryDirectory() as folder:
            contestants = {
                "lensjax, step by step": lensjax_steps(config, number, "host"),
                "lensjax, one loop": lensjax_steps(config, number, "device"),
            } | torch_steps(name, values.batch, number, Path(folder))
            rates = measured(contestants, number, values.rounds)
        figures["images_per_second"][name] = rates
        first = rates["lensjax, step by step"]
        for contestant, rate in rates.items():
            log.info("  %-32s %8.1f images/s, %5.2f x", contestant, rate, first / rate)
    if values.output:
        Path(values.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measured(contestants: dict[str, Contestant], number: int, rounds: int) -> dict[str, float]:
    """Images a second of each, from its quickest round; they take turns."""
    for run in contestants.values():
        run()  # compiles
    least = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - started)
    return {name: number / seconds for name, seconds in least.items()}


def noise_images(number: int, residuals: bool) -> ImageSet:
    """Images without meaning: what is in them does not change the time."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 800, (number, SIZE, SIZE)).astype(np.uint16)
    left = generator.normal(size=pixels.shape).astype(np.float16) if residuals else None
    names = tuple(map(str, range(number)))
    scale, labels = np.full(number, 800, np.float32), np.arange(number) % 3
    return ImageSet(pixels, scale, labels.astype(np.int32), names, left)


def lensjax_steps(config: ConfigDict, number: int, residence: str) -> Contestant:
    """An epoch of that many images."""
    devices = jax.local_devices()[:1]
    config = config.copy_and_resolve_references()
    config.data.residence = residence
    model = models.build(config.model, axis_name=AXIS)
    adamw = optimizer.build(config.optimizer, 1_000)
    state = initial_state(
        model,
        adamw,
        jax.random.key(0),
        image_size=prepared_size(SIZE, config.preparation.crop),
        channels=num_channels(config.data.fit),
        terms=term_names(config.model.name),
    )
    step = functools.partial(
        train_step,
        model=model,
        optimizer=adamw,
        prepare=functools.partial(prepare, **config.preparation),
        max_rotation=config.augmentation.max_rotation,
        dihedral=config.augmentation.dihedral,
        physics_weight=config.loss.physics_weight,
        axis_name=AXIS,
    )
    state, key = replicated((state, jax.random.key(1)), devices)
    images = noise_images(number, config.data.fit != "none")
    advance = engine.build(step, images, key, config, devices)(0)

    def run() -> None:
        nonlocal state
        done = 0
        while done * config.batch_size < number:
            state, done, _ = advance(state, done)
        jax.block_until_ready(state)

    return run


def torch_steps(name: str, batch: int, number: int, folder: Path) -> dict[str, Contestant]:
    """The reference's loop over files, and a loop over images in memory; none for other models."""
    if name == "lens_fit":
        return {}
    sys.path.insert(0, str(ROOT))
    try:
        torch: Any = importlib.import_module("torch")
        peers: Any = importlib.import_module("tests.oracles.torch_models")
    except ImportError as error:
        log.info("  PyTorch is left out: %s", error)
        return {}
    images = noise_images(number, False)
    for row, image in enumerate(images.images()[..., 0]):
        np.save(folder / f"{row}.npy", image[None].astype(np.float64))
    functional = torch.nn.functional

    def turned(image: Any) -> Any:
        angle = float(torch.empty(1).uniform_(-10, 10)) * np.pi / 180
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]], dtype=torch.float32)
        grid = functional.affine_grid(matrix, (1, 1, SIZE, SIZE), align_corners=False)
        return functional.grid_sample(image[None], grid, mode="nearest", align_corners=False)[0]

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return number

        def __getitem__(self, row: int) -> Any:
            image = torch.from_numpy(np.load(folder / f"{row}.npy")).float()
            return turned(image), int(images.labels[row])

    def steps(model: Any, batches: Callable[[], Any], layout: Any) -> Contestant:
        model = model.to(memory_format=layout).train()
        adamw = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            for inputs, labels in batches():
                adamw.zero_grad()
                inputs = inputs.contiguous(memory_format=layout)
                loss = functional.cross_entropy(model(inputs), labels)
                if name == "pinn":
                    # The reference runs its transformer a second time for the physics loss.
                    loss = loss + 0.01 * model.physics_loss(inputs)
                loss.backward()
                adamw.step()
                loss.item()

        return run

    loader = torch.utils.data.DataLoader(Files(), batch, shuffle=True, num_workers=4)
    whole = torch.from_numpy(images.images()[..., 0])[:, None]
    labels = torch.from_numpy(images.labels).long()

    def in_memory() -> Any:
        for rows in torch.randperm(number).split(batch):
            yield torch.stack([turned(image) for image in whole[rows]]), labels[rows]

    make = peers.BaselineCNN if name == "baseline" else peers.LensVITPINN
    return {
        "PyTorch, the reference's loop": steps(make(), lambda: loader, torch.contiguous_format),
        "PyTorch, in memory": steps(make(), in_memory, torch.channels_last),
    }


def run() -> int:
    """Runs the command and gives its exit code."""
    return program.run(main, __doc__, name="benchmark_training")


if __name__ == "__main__":
    sys.exit(run())
