"""Programs lowered for CPU, CUDA and TPU; no accelerator is needed."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from lensjax import fitting, physics, simulation
from lensjax.models import LensViTPINN
from lensjax.training.recipe import Recipe
from lensjax.training.state import initial_state
from lensjax.training.step import eval_step, train_step

SIZE = 64
ACCELERATORS = ("cuda", "tpu")
OPTIMIZER = optax.adamw(1e-4)
RECIPE = Recipe(max_rotation=10.0, dihedral=True, max_shift=2, physics_weight=0.01)
# Contains every layer of lensjax.
MODEL = LensViTPINN(width=4, stage_sizes=(1, 1), embedding_size=12, depth=1, num_heads=2)


def training_arguments():
    options = {"image_size": SIZE, "terms": ("cross_entropy", "physics")}
    state = jax.eval_shape(functools.partial(initial_state, MODEL, OPTIMIZER, **options), jax.random.key(0))
    batch = {
        "pixels": jax.ShapeDtypeStruct((8, SIZE, SIZE), jnp.uint16),
        "scale": jax.ShapeDtypeStruct((8,), jnp.float32),
        "labels": jax.ShapeDtypeStruct((8,), jnp.int32),
        "weights": jax.ShapeDtypeStruct((8,), jnp.float32),
    }
    return state, batch


def train_program():
    step = functools.partial(train_step, model=MODEL, optimizer=OPTIMIZER, recipe=RECIPE)
    return step, (*training_arguments(), jax.random.key(0))


def eval_program():
    step = functools.partial(eval_step, model=MODEL, recipe=RECIPE, with_loss=True)
    state, batch = training_arguments()
    return step, (state.variables, batch)


def fit_program():
    images = jax.ShapeDtypeStruct((4, SIZE, SIZE, 1), jnp.float32)
    return fitting.fit_lens, (images,)


def refine_program():
    model = fitting.COMMON_TEST
    image, start = jnp.zeros((SIZE, SIZE)), jnp.zeros(len(model.nonlinear))
    return functools.partial(fitting.refine_parameters, model, max_steps=3), (image, start)


def simulate_program():
    preset = simulation.preset("common_test")
    return (lambda key: simulation.simulate(key, preset, "vort")), (jax.random.key(0),)


def evidence_program():
    images = jnp.zeros((16, SIZE, SIZE, 1))
    fit = jax.eval_shape(fitting.fit_lens, images)
    prior = physics.SubstructurePrior(
        subhalos=physics.SubhaloPrior(25, (1e-4, 1e-2), -0.9, (0.5, 1.5)),
        vortex=physics.VortexPrior(20, (1e-3, 1e-1), (0.5, 2.0), 0.5),
    )
    return (lambda images, fit: fitting.class_evidence(images, fit, prior)), (images, fit)


PROGRAMS = {
    "train_step": train_program,
    "eval_step": eval_program,
    "fit_lens": fit_program,
    "refine_parameters": refine_program,
    "simulate": simulate_program,
    "class_evidence": evidence_program,
}
WITH_CPU_FORMS = ("train_step", "eval_step", "class_evidence")


def lower(name):
    """Text of a program for each platform, lowered one platform at a time."""
    jax.clear_caches()  # forces a new trace
    function, arguments = PROGRAMS[name]()
    traced = jax.jit(function).trace(*arguments)
    return {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", *ACCELERATORS)
    }


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request):
    """Name and texts of a program."""
    return request.param, lower(request.param)


def count_operations(text):
    """Number of each operation with the types of its operands and results."""
    # Constants, returns and broadcast constants are not counted. Constants and returns select a form, and
    # each form returns broadcast constants in place of the residuals that only the other form needs.
    operations = r"(stablehlo\.(?!constant|return)\w+|call @[a-z]+).* : (?!\(tensor<\w+>\) -> )(.*)"
    return collections.Counter(re.findall(operations, text))


def test_accelerators_get_no_cpu_form(program, monkeypatch):
    name, texts = program

    def default_form(*operands, cpu, default):
        return default(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_form)
    default_texts = lower(name)
    for platform in ACCELERATORS:
        assert count_operations(texts[platform]) == count_operations(default_texts[platform])
    if name in WITH_CPU_FORMS:  # shows that the comparison above can detect a CPU form
        assert count_operations(texts["cpu"]) != count_operations(default_texts["cpu"])


def test_products_have_full_precision(program):
    """Without this setting, a GPU computes products of float32 numbers in TF32."""
    name, texts = program
    products = [
        line
        for line in texts["cuda"].splitlines()
        if re.search(r"stablehlo\.(dot_general|convolution)", line)
    ]
    floats = [line for line in products if re.search(r"-> tensor<[x\d]*xf32>", line)]
    assert all(line.count("HIGHEST") == 2 for line in floats), floats
    assert floats or name == "simulate"
