"""Sources of increasing complexity, for a small lens that lenstronomy renders."""

import types

import numpy as np
import pytest
from helpers import small_lens

from lensjax.modeling.frame import Data
from lensjax.modeling.model import replace_source
from lensjax.modeling.shapelets import Shapelets
from lensjax.modeling.sources import POSITIVE_SOURCE, Stage, arc_residual, fit_source_chains, sort_chains
from lensjax.modeling.variable_projection import fit_model

SIMPLE = small_lens.AMPLITUDES
# Shapelets up to order 5, some of them bright.
COMPLEX = np.concatenate([SIMPLE, np.zeros(18)])
COMPLEX[[9, 12, 15, 20, 22]] = 12.0, -15.0, 14.0, 16.0, -13.0


def fit_chain(amplitudes, source):
    image = small_lens.simulate(np.append(small_lens.FREE, amplitudes))
    image = image + np.random.default_rng(1).normal(0, 1, image.shape)
    parts = image, np.ones(image.shape), small_lens.PSF
    data = Data(*(np.asarray(part, np.float32) for part in parts))
    model = replace_source(small_lens.MODEL, (POSITIVE_SOURCE,))
    fit = fit_model(model, small_lens.FRAME, data, model.start(small_lens.TRUTH))
    (chain,) = fit_source_chains((source,), [Stage(model, fit)], small_lens.FRAME, data, 1.0)
    orders = [stage.model.source[0].order for stage in chain[1:]]
    return orders, arc_residual(chain[-1], small_lens.FRAME, data)


@pytest.mark.parametrize(
    ("amplitudes", "source", "expected"),
    [
        (SIMPLE, Shapelets(order=1, max_order=5), [1]),
        (COMPLEX, Shapelets(order=1), [1]),
        (COMPLEX, Shapelets(order=1, max_order=5), [1, 5]),
    ],
    ids=["simple", "fixed", "complex"],
)
def test_order_rises_only_if_arcs_require_it(amplitudes, source, expected):
    orders, residual = fit_chain(amplitudes, source)
    assert orders == expected
    if amplitudes is SIMPLE or source.max_order:
        assert residual == pytest.approx(1, abs=0.15)  # unit noise; about 900 pixels
    else:
        assert residual > 2.5


def test_solution_is_chosen_by_positive_source():
    def chain(*costs):
        return [types.SimpleNamespace(fit=types.SimpleNamespace(cost=cost)) for cost in costs]

    wrong, right = chain(130.0, 90.0, 50.0), chain(120.0, 95.0, 60.0)
    assert sort_chains([wrong, right]) == [right, wrong]


@pytest.mark.parametrize("max_order", [7, 31])
def test_invalid_largest_order_raises_an_error(max_order):
    with pytest.raises(ValueError, match=f"max_order of Shapelets is {max_order}; expected 8 to 30 or None"):
        Shapelets(order=8, max_order=max_order)
