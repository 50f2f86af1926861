"""Covariance and verdict of the best solution of a fit."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.frame import Data, Frame, Prepared, pixel_distances
from lensjax.modeling.model import LensModel
from lensjax.modeling.observation import Observation
from lensjax.modeling.pixel_fit import STEPS, border_brightness
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.sources import ARC_WIDTH, LATER, Stage, arc_residual, refine_modes, source_chain
from lensjax.modeling.variable_projection import chi_square_without_source, fit_model, model_images
from lensjax.modeling.verdict import Evidence, judge

WEAKER_PRIORS = 0.4  # of the usual weight


def assess(
    observation: Observation,
    model: LensModel,
    prepared: Prepared,
    data: Data,
    chains: list[list[Stage]],
    artifacts: np.ndarray,
    notes: tuple[str, ...],
) -> LensModelFit:
    """Judges the best solution.

    Args:
      observation: the observation, with the correlation of its noise.
      model: the model that the user gave.
      prepared: the pixels, native and coarse.
      data: the native pixels with the weights of the fit.
      chains: for each solution, the fits with the same sources of increasing complexity; the best solution
        first.
      artifacts: True for masked pixels.
      notes: what was estimated or assumed.

    Returns:
      The result, in the unit of the image.
    """
    frame = prepared.fine[0]
    best, stage = chains[0], chains[0][-1]
    correlation = observation.correlation
    sky_variance = observation.sky_variance
    inflation = correlation.variance_factor if correlation else 1.0
    weaker = LATER._replace(prior_weight=LATER.prior_weight * WEAKER_PRIORS)
    if stage.model.pixel_grid:
        weaker = weaker._replace(steps=STEPS)
    relaxed = fit_model(stage.model, frame, data, stage.fit.free, weaker, stage.priors)
    positive = best[0]
    if positive.priors:  # its radius was held
        positive = next(iter(refine_modes([dataclasses.replace(positive, priors=())], frame, data)), positive)
    radii = {f"{_describe(positive.model)} (positive)": positive.einstein_radius}
    radii |= {_describe(each.model): each.einstein_radius for each in best[1:]}
    if relaxed is not None:
        radii["weaker priors"] = Stage(stage.model, relaxed).einstein_radius
    others = tuple((chain[-1].einstein_radius, chain[0].fit.cost / best[0].fit.cost) for chain in chains[1:])
    # A smooth model decreases the chi-square of correlated noise `inflation` times as much as that of white
    # noise.
    gain = chi_square_without_source(positive.model, data, positive.fit) - positive.fit.chi_square
    detection = float(np.sqrt(max(gain, 0.0) / inflation))
    values = stage.values
    images = model_images(stage.model, frame, data, stage.fit.free, stage.fit.amplitudes)
    center = values.get("mass.0.center_x", 0.0), values.get("mass.0.center_y", 0.0)
    used = data.weight > 0
    arcs = arc_residual(stage, frame, data) / sky_variance
    low, high = stage.model.bounds
    free = stage.fit.free
    at_bound = [
        name
        for name, reached in zip(stage.model.fitted, (free <= low) | (free >= high), strict=True)
        if reached and not stage.model.parameters[name].held
    ]
    source = values.get("source.0.center_x", 0.0), values.get("source.0.center_y", 0.0)
    verdict = judge(
        Evidence(
            detection=detection,
            theta_E=stage.einstein_radius,
            radii=list(radii.values())[1:],
            positive_radius=positive.einstein_radius,
            others=others,
            psf_width=_psf_width(data.psf, frame),
            at_bound=at_bound,
            shear=_shear(values),
            arc_residual=arcs,
            source_offset=float(np.hypot(source[0] - center[0], source[1] - center[1]))
            / stage.einstein_radius,
            cut_off=_missing_part(frame, used, center, stage.einstein_radius),
            sky_variance=sky_variance,
            simpler_source=len(best) <= len(source_chain(model.source)),
            source_border=border_brightness(stage.model, stage.fit),
        )
    )
    covariance = parameter_covariance(
        stage.model,
        frame,
        data,
        stage.fit,
        prior_weight=LATER.prior_weight,
        correlate=correlation.apply if correlation else lambda columns: columns,
        priors=stage.priors,
    )
    unit = prepared.unit
    with np.errstate(divide="ignore"):
        noise = unit / data.weight.astype(np.float64)
    return LensModelFit(
        model=dataclasses.replace(stage.model, priors=(*stage.model.priors, *stage.priors)),
        parameters=values,
        names=tuple(np.array(stage.model.fitted)[~stage.model.held].tolist()),
        covariance=covariance * (max(1.0, arcs) if np.isfinite(arcs) else 1.0),
        amplitudes=stage.fit.amplitudes * unit,
        frame=frame,
        image=data.image * unit,
        noise=noise,
        lens_light=images["lens_light"] * unit,
        sky=images["sky"] * unit,
        lensed_source=images["source"] * unit,
        artifacts=artifacts,
        chi_square=stage.fit.chi_square,
        degrees_of_freedom=round(used.sum() - np.sum(~stage.model.held) - stage.fit.effective_amplitudes),
        sky_variance=sky_variance,
        detection=detection,
        radii=radii,
        others=others,
        verdict=verdict,
        notes=notes,
    )


def _shear(values: Mapping[str, float]) -> float:
    """Modulus of the sum of all external shears."""
    gamma1, gamma2 = (
        sum(value for name, value in values.items() if name.endswith(f".{component}"))
        for component in ("gamma1", "gamma2")
    )
    return float(np.hypot(gamma1, gamma2))


def _describe(model: LensModel) -> str:
    """Description of the source of a model."""
    names = []
    for component in model.source:
        order = getattr(component, "order", None)
        names.append(type(component).__name__ + (f" {order}" if order is not None else ""))
    return " + ".join(names)


def _psf_width(psf: np.ndarray, frame: Frame) -> float:
    """Full width at half maximum, from the area above half of the maximum, arcsec."""
    pixel = frame.pixel_scale / frame.psf_subpixels
    return float(2 * np.sqrt((psf >= psf.max() / 2).sum() / np.pi) * pixel)


def _missing_part(frame: Frame, used: np.ndarray, center: tuple[float, float], radius: float) -> float:
    """Fraction of the annulus of the arcs that is masked or outside of the frame."""
    annulus = np.abs(pixel_distances(frame, center) - radius) < ARC_WIDTH / 2
    inner = max(radius - ARC_WIDTH / 2, 0.0)
    area = np.pi * ((radius + ARC_WIDTH / 2) ** 2 - inner**2)
    return float(np.clip(1 - (annulus & used).sum() * frame.pixel_scale**2 / area, 0, 1))
