"""Writes tests/physics/golden/*.npz: lenstronomy's results for random lenses and sources.

  python tests/oracles/make_golden.py [--output FOLDER]

The tests compare the profiles of lensjax.physics with these files and, if lenstronomy is installed, with its
results for other random draws. The same version of lenstronomy always writes the same files.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent.parent / "physics" / "golden"

# lenstronomy's name of each profile and the ranges of its parameters. "ellipticity" is the range of the
# modulus of (e1, e2); the axis ratio is at least 0.3.
MASS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "sis": ("SIS", {"theta_E": (0.1, 2)}),
    "sie": ("SIE", {"theta_E": (0.1, 2), "ellipticity": (0.01, 0.538)}),
    "epl": ("EPL", {"theta_E": (0.1, 2), "gamma": (1.5, 2.5), "ellipticity": (0, 0.538)}),
    "external_shear": ("SHEAR", {"gamma1": (-0.3, 0.3), "gamma2": (-0.3, 0.3)}),
    "mass_sheet": ("CONVERGENCE", {"kappa": (-0.3, 0.3)}),
    "point_mass": ("POINT_MASS", {"theta_E": (0.01, 2)}),
    "nfw": ("NFW", {"Rs": (0.3, 10), "alpha_Rs": (0.1, 2)}),
    "pseudo_jaffe": ("PJAFFE", {"sigma0": (0.1, 2), "Ra": (0.01, 0.5), "Rs": (0.6, 5)}),
}
LIGHT: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "sersic": (
        "SERSIC_ELLIPSE",
        {"amp": (1, 100), "R_sersic": (0.2, 1.5), "n_sersic": (0.5, 5), "ellipticity": (0, 0.538)},
    ),
    "round_sersic": ("SERSIC", {"amp": (1, 100), "R_sersic": (0.2, 1.5), "n_sersic": (0.5, 5)}),
    "gaussian": ("GAUSSIAN_ELLIPSE", {"amp": (1, 9), "sigma": (0.4, 2), "ellipticity": (0, 0.538)}),
}
WITHOUT_CENTER = {"external_shear"}
HALF_FIELD = 3.75  # arcsec, half the side of a field of 150 pixels


def columns(ranges: dict[str, tuple[float, float]], profile: str) -> list[str]:
    """Names of the columns of a table: x, y, the parameters, and the center if the profile has one."""
    found = ["x", "y"]
    for name in ranges:
        found += ["e1", "e2"] if name == "ellipticity" else [name]
    return found if profile in WITHOUT_CENTER else [*found, "center_x", "center_y"]


def draw(ranges: dict[str, tuple[float, float]], profile: str, number: int, seed: int) -> np.ndarray:
    """Table of `number` random positions and lenses; `columns` names its columns."""
    generator = np.random.default_rng(seed)
    found = [*generator.uniform(-HALF_FIELD, HALF_FIELD, (2, number))]
    for name, (low, high) in ranges.items():
        values = generator.uniform(low, high, number)
        if name == "ellipticity":
            angle = generator.uniform(0, 2 * np.pi, number)
            found += [values * np.cos(angle), values * np.sin(angle)]
        else:
            found.append(values)
    if profile not in WITHOUT_CENTER:
        found += [*generator.uniform(-0.5, 0.5, (2, number))]
    return np.stack(found, 1)


def lens_truth(profile: str, table: np.ndarray) -> np.ndarray:
    """lenstronomy's potential, deflection (two columns) and convergence for each row of a table."""
    from lenstronomy.LensModel.lens_model import LensModel  # type: ignore[import-untyped]

    model, ranges = MASS[profile]
    oracle = LensModel([model])
    # lenstronomy's convergence of SIE is a finite difference, accurate to 1e-5; that of EPL is a closed form.
    dense, slope = (LensModel(["EPL"]), {"gamma": 2.0}) if profile == "sie" else (oracle, {})
    return _evaluate_rows(
        columns(ranges, profile),
        table,
        lambda x, y, lens: np.array(
            [
                oracle.potential(x, y, [lens])[0],
                *np.ravel(oracle.alpha(x, y, [lens])),
                dense.kappa(x, y, [lens | slope])[0],
            ]
        ),
    )


def light_truth(profile: str, table: np.ndarray) -> np.ndarray:
    """lenstronomy's surface brightness for each row of a table, as one column."""
    from lenstronomy.LightModel.light_model import LightModel  # type: ignore[import-untyped]

    model, ranges = LIGHT[profile]
    oracle = LightModel([model])
    return _evaluate_rows(
        columns(ranges, profile), table, lambda x, y, light: oracle.surface_brightness(x, y, [light])
    )


def _evaluate_rows(
    names: list[str], table: np.ndarray, function: Callable[[Any, Any, Any], np.ndarray]
) -> np.ndarray:
    rename = {"center_x": "ra_0", "center_y": "dec_0"} if "kappa" in names else {}
    rows = []
    for row in table:
        values = {rename.get(n, n): float(v) for n, v in zip(names[2:], row[2:], strict=True)}
        rows.append(function(row[:1].copy(), row[1:2].copy(), values))
    return np.stack(rows)


def main() -> None:
    """Writes mass.npz and light.npz: random tables and lenstronomy's results for each profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=GOLDEN)
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    kinds: tuple[tuple[str, dict, Callable], ...] = (
        ("mass", MASS, lens_truth),
        ("light", LIGHT, light_truth),
    )
    for kind, profiles, truth in kinds:
        arrays: dict[str, Any] = {}
        for seed, (profile, (_, ranges)) in enumerate(profiles.items()):
            arrays[profile] = table = draw(ranges, profile, 16, seed)
            arrays[f"{profile}_truth"] = truth(profile, table)
        np.savez(folder / f"{kind}.npz", **arrays)


if __name__ == "__main__":
    main()
