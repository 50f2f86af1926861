"""Cost of a training step, compared with PyTorch's count and with the traced program."""

import jax
import numpy as np
import pytest

from lensjax import models
from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.training import cost
from lensjax.training.parallel import AXIS
from lensjax.training.start import build_step

torch = pytest.importorskip("torch")
from oracles.torch_models import BaselineCNN  # noqa: E402 (needs torch)
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402


def small_config(**overrides):
    config = default_config()
    config.batch_size = 4
    config.data.image_size = 64
    config.update_from_flattened_dict(overrides)
    return config


def test_step_flops_match_torch():
    model = BaselineCNN(width=32)
    with FlopCounterMode(display=False) as counter:
        images = torch.zeros(2, 1, 150, 150)
        torch.nn.functional.cross_entropy(model(images), torch.zeros(2).long()).backward()
    config = small_config(**{"model.width": 32, "data.image_size": 150, "batch_size": 2})
    ratio = cost.step_flops(config) / counter.get_total_flops()
    # Torch also counts products with the zero padding, but neither rotation nor normalization.
    assert 0.9 < ratio < 1.05


def test_missing_cpu_client_raises_an_error(monkeypatch):
    def unknown(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", unknown)
    with pytest.raises(UserError, match="JAX_PLATFORMS"):
        cost.step_flops(small_config())


def sums_over_devices(jaxpr):
    """Size of the operands of each sum over devices, bytes."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("psum"):
            yield sum(each.aval.size * each.aval.dtype.itemsize for each in equation.invars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from sums_over_devices(inner)


@pytest.mark.parametrize("name", ["baseline_cnn", "lens_vit_pinn"])
def test_all_reduces_match_the_sums_in_the_step(name):
    small = {"model.name": name, "model.width": 4, "model.depth": 1, "model.embedding_size": 12}
    config = small_config(**small)
    step = build_step(config, models.build(config, axis_name=AXIS), 10)
    batch = {
        "pixels": np.zeros((2, 4, 64, 64), np.uint16),
        "scale": np.ones((2, 4), np.float32),
        "labels": np.zeros((2, 4), np.int32),
        "weights": np.ones((2, 4), np.float32),
    }
    mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), cost.abstract_state(config))
    found = list(sums_over_devices(jax.make_jaxpr(mapped)(state, batch, jax.random.key(0)).jaxpr))
    number, size = cost.all_reduces(config)
    # The loss terms are summed together with the gradients.
    assert abs(sum(found) - size) < 32
    # One forward and one backward for each batch normalization, one for the gradients, one for the count: XLA
    # combines all-reduces that do not depend on each other.
    layers = sum(isinstance(each, torch.nn.BatchNorm2d) for each in BaselineCNN().modules())
    assert number == 2 * layers + 2


def test_peak_is_measured_on_cpus_else_listed():
    assert cost.peak_flops(jax.devices("cpu")[0], "float32") > 1e9

    class Device:
        platform, device_kind = "gpu", "NVIDIA H100 80GB HBM3"

    assert cost.peak_flops(Device(), "tensorfloat32") == 494e12
    for other in ("unknown", "NVIDIA L40", "NVIDIA T400 4GB"):
        Device.device_kind = other
        assert cost.peak_flops(Device(), "float32") is None
