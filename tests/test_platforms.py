"""Programs lowered for CPU, CUDA and TPU on a machine that may have none of the accelerators."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from lensjax import fitting, simulation
from lensjax.models import BaselineCNN, LensFitNet, LensViTPINN
from lensjax.training.recipe import Recipe
from lensjax.training.state import initial_state
from lensjax.training.step import eval_step, train_step

SIZE = 64
ACCELERATORS = ("cuda", "tpu")
OPTIMIZER = optax.adamw(1e-4)
RECIPE = Recipe(max_rotation=10.0, dihedral=True, max_shift=2, physics_weight=0.01)
MODELS = {
    "baseline": BaselineCNN(width=4),
    "pinn": LensViTPINN(width=4, embedding_size=12, depth=1, num_heads=2),
    "lens_fit": LensFitNet(width=4),
}


def training_arguments(name):
    model = MODELS[name]
    channels = 2 if name == "lens_fit" else 1
    terms = ("cross_entropy", "physics") if name == "pinn" else ("cross_entropy",)
    options = {"image_size": SIZE, "channels": channels, "terms": terms}
    state = jax.eval_shape(
        functools.partial(initial_state, model, OPTIMIZER, **options), jax.random.key(0)
    )
    batch = {
        "pixels": jax.ShapeDtypeStruct((8, SIZE, SIZE), jnp.uint16),
        "scale": jax.ShapeDtypeStruct((8,), jnp.float32),
        "labels": jax.ShapeDtypeStruct((8,), jnp.int32),
        "weights": jax.ShapeDtypeStruct((8,), jnp.float32),
    }
    if channels == 2:
        batch["residuals"] = jax.ShapeDtypeStruct((8, SIZE, SIZE), jnp.float16)
    return state, batch


def train_program(name):
    step = functools.partial(train_step, model=MODELS[name], optimizer=OPTIMIZER, recipe=RECIPE)
    return step, (*training_arguments(name), jax.random.key(0))


def eval_program(name):
    step = functools.partial(eval_step, model=MODELS[name], recipe=RECIPE, with_loss=True)
    state, batch = training_arguments(name)
    return step, (state.variables, batch)


def fit_program():
    images = jax.ShapeDtypeStruct((4, SIZE, SIZE, 1), jnp.float32)
    return fitting.fit_lens, (images,)


def simulate_program():
    preset = simulation.preset("common_test")
    return (lambda key: simulation.simulate(key, preset, 2)), (jax.random.key(0),)


def evidence_program():
    images = jnp.zeros((20, SIZE, SIZE, 1))
    fit = jax.eval_shape(fitting.fit_lens, images)
    prior = fitting.SubstructurePrior(
        masses=fitting.PointMasses(25, (1e-4, 1e-2), -0.9, (0.5, 1.5)),
        line=fitting.MassLine(20, (1e-3, 1e-1), (0.5, 2.0), 0.5),
    )
    return (lambda images, fit: fitting.class_evidence(images, fit, prior)), (images, fit)


PROGRAMS = {
    **{f"train step, {name}": functools.partial(train_program, name) for name in MODELS},
    **{f"eval step, {name}": functools.partial(eval_program, name) for name in MODELS},
    "fit_lens": fit_program,
    "simulate": simulate_program,
    "class_evidence": evidence_program,
}
# Their program is the same on all platforms.
WITHOUT_FORMS = ("fit_lens", "simulate")


def lowered(program, platforms):
    """For each platform how often each operation occurs, with the types of operands and results."""
    function, arguments = program()
    # A new function each time, so that nothing traced before is used again.
    traced = jax.jit(lambda *given: function(*given)).trace(*arguments)
    texts = [traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms]
    operations = r"(stablehlo\.\w+|call @[a-z]+).* : (.*)"
    return [collections.Counter(re.findall(operations, text)) for text in texts]


@pytest.mark.parametrize("name", PROGRAMS)
def test_accelerators_get_no_cpu_form(name, monkeypatch):
    """Lowered as `jax.export` does it, for one platform at a time."""
    on_cpu, *on_accelerators = lowered(PROGRAMS[name], ("cpu", *ACCELERATORS))

    def default_form(*operands, cpu, default):
        return default(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_form)
    jax.clear_caches()
    assert on_accelerators == lowered(PROGRAMS[name], ACCELERATORS)
    assert (on_cpu == on_accelerators[0]) == (name in WITHOUT_FORMS)
