"""tools/studies/likelihood_ratio.py: AUC."""

import numpy as np
from helpers.studies import load_study


def test_auc_is_fraction_of_ordered_pairs():
    rng = np.random.default_rng(0)
    labels, ratios = rng.integers(0, 3, 60), rng.normal(0, 900, (60, 3))
    areas = load_study("likelihood_ratio").aucs(labels, ratios, np.ones((1, 60)))[0]
    for label in range(3):
        others = np.delete(ratios, label, axis=1)
        odds = ratios[:, label] - others.max(1) - np.log1p(np.exp(others.min(1) - others.max(1)))
        inside, outside = odds[labels == label], odds[labels != label]
        np.testing.assert_allclose(areas[label], (inside[:, None] > outside[None]).mean())
    np.testing.assert_allclose(areas[3], areas[:3].mean())
