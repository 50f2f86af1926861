"""Writes tests/physics/golden/*.npz: what lenstronomy says of lenses and sources drawn at random.

  python tests/oracles/make_golden.py [--output FOLDER]

The tests compare the profiles of lensjax.physics with these files where lenstronomy is not installed,
and with fresh draws where it is. The same version of lenstronomy writes the same files.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent.parent / "physics" / "golden"

# lenstronomy's name of each profile, and from where to where its parameters are drawn, in the order of
# lensjax's signatures; "ellipticity" stands for e1 and e2 of an axis ratio of 0.3 or more.
MASS: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "sis": ("SIS", {"theta_E": (0.1, 2)}),
    "sie": ("SIE", {"theta_E": (0.1, 2), "ellipticity": (0.01, 0.538)}),
    "epl": ("EPL", {"theta_E": (0.1, 2), "gamma": (1.5, 2.5), "ellipticity": (0, 0.538)}),
    "shear": ("SHEAR", {"gamma1": (-0.3, 0.3), "gamma2": (-0.3, 0.3)}),
    "sheet": ("CONVERGENCE", {"kappa": (-0.3, 0.3)}),
    "point_mass": ("POINT_MASS", {"theta_E": (0.01, 2)}),
    "nfw": ("NFW", {"Rs": (0.3, 10), "alpha_Rs": (0.1, 2)}),
    "pseudo_jaffe": ("PJAFFE", {"sigma0": (0.1, 2), "Ra": (0.01, 0.5), "Rs": (0.6, 5)}),
}
LIGHT: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "sersic": (
        "SERSIC_ELLIPSE",
        {"amp": (1, 100), "R_sersic": (0.2, 1.5), "n_sersic": (0.5, 5), "ellipticity": (0, 0.538)},
    ),
    "round_sersic": (
        "SERSIC",
        {"amp": (1, 100), "R_sersic": (0.2, 1.5), "n_sersic": (0.5, 5)},
    ),
    "gaussian": ("GAUSSIAN_ELLIPSE", {"amp": (1, 9), "sigma": (0.4, 2), "ellipticity": (0, 0.538)}),
}
WITHOUT_CENTRE = {"shear"}
REACH = 3.75  # arcsec, half the side of a field of 150 pixels


def names(ranges: dict[str, tuple[float, float]], profile: str) -> list[str]:
    """The columns of a table of draws: x, y, the parameters, and the centre where there is one."""
    found = ["x", "y"]
    for name in ranges:
        found += ["e1", "e2"] if name == "ellipticity" else [name]
    return found if profile in WITHOUT_CENTRE else [*found, "center_x", "center_y"]


def draws(
    ranges: dict[str, tuple[float, float]], profile: str, number: int, seed: int
) -> np.ndarray:
    """A table of `number` positions and lenses, one column for each of `names`."""
    generator = np.random.default_rng(seed)
    columns = [*generator.uniform(-REACH, REACH, (2, number))]
    for name, (low, high) in ranges.items():
        values = generator.uniform(low, high, number)
        if name == "ellipticity":
            angle = generator.uniform(0, 2 * np.pi, number)
            columns += [values * np.cos(angle), values * np.sin(angle)]
        else:
            columns.append(values)
    if profile not in WITHOUT_CENTRE:
        columns += [*generator.uniform(-0.5, 0.5, (2, number))]
    return np.stack(columns, 1)


def lens_truth(profile: str, table: np.ndarray) -> np.ndarray:
    """Potential, deflection (two columns) and convergence by lenstronomy, for each row of a table."""
    from lenstronomy.LensModel.lens_model import LensModel  # type: ignore[import-untyped]

    model, ranges = MASS[profile]
    oracle = LensModel([model])
    # The convergence of its SIE is a finite difference, good to 1e-5; that of EPL is a formula.
    dense, slope = (LensModel(["EPL"]), {"gamma": 2.0}) if profile == "sie" else (oracle, {})
    return _each(
        names(ranges, profile),
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
    """Surface brightness by lenstronomy for each row of a table, as one column."""
    from lenstronomy.LightModel.light_model import LightModel  # type: ignore[import-untyped]

    model, ranges = LIGHT[profile]
    oracle = LightModel([model])
    return _each(
        names(ranges, profile), table, lambda x, y, light: oracle.surface_brightness(x, y, [light])
    )


def _each(
    columns: list[str], table: np.ndarray, function: Callable[[Any, Any, Any], np.ndarray]
) -> np.ndarray:
    rename = {"center_x": "ra_0", "center_y": "dec_0"} if "kappa" in columns else {}
    rows = []
    for row in table:
        values = {rename.get(n, n): float(v) for n, v in zip(columns[2:], row[2:], strict=True)}
        rows.append(function(row[:1].copy(), row[1:2].copy(), values))
    return np.stack(rows)


def main() -> None:
    """Writes mass.npz and light.npz: a table of draws and lenstronomy's answers for each profile."""
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
            arrays[profile] = table = draws(ranges, profile, 16, seed)
            arrays[f"{profile}_truth"] = truth(profile, table)
        np.savez(folder / f"{kind}.npz", **arrays)


if __name__ == "__main__":
    main()
