"""The program that tools/benchmarks/training.py starts in the process of each contestant.

The first line of standard input is the task, in JSON. The process replies with a line of JSON after its first
step. It then runs the job that each further line names and replies with the time in seconds; at "end" it
replies with its peak memory and exits.
"""

import contextlib
import functools
import importlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.runtime.host_memory import peak_memory

ROOT = Path(__file__).parent.parent.parent
Jobs = dict[str, Callable[[], Any]]


def main(arguments: list[str]) -> int:
    """Runs the jobs named on standard input, and returns the exit code."""
    if "--help" in arguments:
        sys.stdout.write(__doc__ or "")
        return 0
    try:
        task = json.loads("" if arguments else sys.stdin.readline())
    except ValueError:
        sys.stderr.write(
            "training_contestants: expected no arguments and a task on standard input; see --help\n"
        )
        return 2
    replies = sys.stdout
    sys.stdout = sys.stderr  # libraries also write to standard output
    with tempfile.TemporaryDirectory() as folder:
        make_jobs = lensjax_jobs if task["contestant"].startswith("lensjax") else torch_jobs
        jobs, peak_bytes = make_jobs(task, Path(folder))
        jobs["first step"]()
        print(json.dumps({"ready": True}), file=replies, flush=True)
        for line in sys.stdin:
            if line.strip() == "end":
                print(json.dumps({"peak_bytes": peak_bytes()}), file=replies, flush=True)
                return 0
            started = time.perf_counter()
            jobs[line.strip()]()
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds}), file=replies, flush=True)
    return 0


def random_images(number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random counts and labels; the content of the images does not affect the time."""
    pixels = np.random.default_rng(0).integers(0, 800, (number, size, size)).astype(np.uint16)
    return pixels, (np.arange(number) % 3).astype(np.int32)


def lensjax_jobs(task: dict[str, Any], folder: Path) -> tuple[Jobs, Callable[[], int]]:
    """Jobs with training and evaluation as in `lensjax.main`, and a function for the peak memory."""
    del folder
    import jax

    from lensjax import models
    from lensjax.cli.configs import load_config
    from lensjax.data.epochs import epoch_batches
    from lensjax.data.images import ImageSet
    from lensjax.prediction.predictor import make_evaluator, make_predictor
    from lensjax.runtime import compilation_cache, host_memory
    from lensjax.training.parallel import AXIS, parallelize_step, prefetch, replicate
    from lensjax.training.start import build_step, initialize_run

    compilation_cache.enable_compilation_cache()
    host_memory.keep_freed_memory()
    config = load_config(str(ROOT / "configs" / f"{task['model']}.py"))
    config = config.copy_and_resolve_references()
    config.batch_size = config.eval_batch_size = task["batch"]
    config.precision = "bfloat16" if "bfloat16" in task["contestant"] else "float32"
    config.data.image_size = task["size"]
    devices = jax.local_devices()[: task["devices"]]

    def images(number: int) -> ImageSet:
        pixels, labels = random_images(number, task["size"])
        residuals = None
        if config.data.fit != "none":
            draw = np.random.default_rng(1).normal(size=pixels.shape)
            residuals = draw.astype(np.float16)
        names = tuple(map(str, range(number)))
        return ImageSet(pixels, np.full(number, 800, np.float32), labels, names, residuals)

    model = models.build(config, axis_name=AXIS)
    step = parallelize_step(build_step(config, model, 1_000), devices)
    state, key = replicate(initialize_run(config, model, 1_000), devices)
    training, validation = images(task["images"]), images(max(task["images"] // 4, task["batch"]))
    predict = make_predictor(config, model, devices=devices)
    validate = make_evaluator(make_predictor(config, model, devices=devices, with_loss=True), validation)

    def train(number: int = task["images"]) -> None:
        nonlocal state
        batches = prefetch(epoch_batches(training, task["batch"], [config.seed], 0), devices, 1)
        for batch in itertools.islice(batches, -(-number // task["batch"])):
            state, _ = step(state, batch, key)
        jax.block_until_ready(state)

    def epoch() -> None:
        train()
        validate(state.variables)

    def warm() -> None:
        predict(state.variables, images(1), quiet=True)
        validate(state.variables)

    def peak_bytes() -> int:
        return (devices[0].memory_stats() or {}).get("peak_bytes_in_use") or peak_memory()

    return {
        "first step": lambda: train(1),
        "warm": warm,
        "train": train,
        "infer": lambda: predict(state.variables, training, quiet=True),
        "epoch": epoch,
    }, peak_bytes


def torch_jobs(task: dict[str, Any], folder: Path) -> tuple[Jobs, Callable[[], int]]:
    """Jobs with the reference's loop or with optimized PyTorch, and a function for the peak memory."""
    sys.path.insert(0, str(ROOT))
    torch: Any = importlib.import_module("torch")
    peers: Any = importlib.import_module("tests.oracles.torch_models")
    metrics: Any = importlib.import_module("sklearn.metrics")
    functional = torch.nn.functional
    device = "cuda" if torch.cuda.is_available() else "cpu"
    is_best = "best" in task["contestant"]
    if is_best:
        importlib.import_module("lensjax.runtime.host_memory").keep_freed_memory()
    is_pinn = task["model"] == "pinn"
    batch = task["batch"]
    pixels, classes = random_images(task["images"], task["size"])
    num_validation = max(task["images"] // 4, batch)
    model = (peers.LensVITPINN if is_pinn else peers.BaselineCNN)().to(device)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4)
    autocast: Callable[[], Any] = contextlib.nullcontext
    if is_best:
        model = model.to(memory_format=torch.channels_last)
        if device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
            autocast = functools.partial(torch.autocast, "cuda", torch.bfloat16)

    def objective(inputs: Any, labels: Any) -> tuple[Any, Any]:
        with autocast():
            logits = model(inputs)
            loss = functional.cross_entropy(logits.float(), labels)
            # The reference runs its transformer a second time for the physics loss.
            return loss + 0.01 * model.physics_loss(inputs) if is_pinn else loss, logits

    compiled_objective = torch.compile(objective) if is_best and task["compile"] else objective

    def rotate(images: Any) -> Any:
        """Rotates each image by a random angle, nearest pixel, like torchvision's RandomRotation(10)."""
        angle = (torch.rand(len(images), device=images.device) * 20 - 10) * np.pi / 180
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3)
        grid = functional.affine_grid(matrix, images.shape, align_corners=False)
        return functional.grid_sample(images, grid, mode="nearest", align_corners=False)

    class Files(torch.utils.data.Dataset):
        """Images read from .npy files, as in the reference."""

        def __init__(self, number: int, rotated: bool) -> None:
            self.number, self.rotated = number, rotated

        def __len__(self) -> int:
            return self.number

        def __getitem__(self, row: int) -> Any:
            image = torch.from_numpy(np.load(folder / f"{row}.npy")).float()
            return rotate(image[None])[0] if self.rotated else image, int(classes[row])

    scaled = pixels.astype(np.float64) / 800
    if not is_best:
        for row, image in enumerate(scaled):
            np.save(folder / f"{row}.npy", image[None])
    whole = torch.from_numpy(scaled.astype(np.float32))[:, None].to(device) if is_best else None
    labels = torch.from_numpy(classes).long()

    def batches(number: int, train: bool) -> Iterator[tuple[Any, Any]]:
        if whole is not None:
            order = torch.randperm(number) if train else torch.arange(number)
            for rows in order.split(batch):
                inputs = whole[rows.to(device)]
                yield rotate(inputs) if train else inputs, labels[rows].to(device)
            return
        loader = torch.utils.data.DataLoader(Files(number, train), batch, shuffle=train, num_workers=4)
        for inputs, targets in loader:
            yield inputs.to(device), targets.to(device)

    def train(number: int = task["images"]) -> None:
        model.train()
        for inputs, targets in batches(number, True):
            if is_best:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            adamw.zero_grad()
            loss, _ = compiled_objective(inputs, targets)
            loss.backward()
            adamw.step()
            if not is_best:
                loss.item()
        if is_best:
            loss.item()

    @torch.inference_mode()
    def predict(number: int) -> np.ndarray:
        model.eval()
        probabilities = []
        for inputs, _ in batches(number, False):
            if is_best:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with autocast():
                probabilities.append(model(inputs).float().softmax(1).cpu().numpy())
        return np.concatenate(probabilities)

    def epoch() -> None:
        train()
        true_classes = np.eye(3)[classes[:num_validation]]
        metrics.roc_auc_score(true_classes, predict(num_validation), average=None)

    def peak_bytes() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()

    return {
        "first step": lambda: train(batch),
        "warm": lambda: predict(batch),
        "train": train,
        "infer": lambda: predict(task["images"]),
        "epoch": epoch,
    }, peak_bytes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
