"""The model of a galaxy that is lensed by a galaxy."""

from lensjax.errors import UserError
from lensjax.modeling.components import MAIN_LENSES, MultiGaussian, Shear, component_parameters
from lensjax.modeling.model import LensModel, Prior
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.shapelets import Shapelets

_LIGHT_ELLIPTICITY = Parameter.fitted((0.02, 0.02), (-0.6, 0.6), prior=(0.0, 0.25))
_SHEAR = Parameter.fitted((0.0, 0.0), (-0.5, 0.5), prior=(0.0, 0.05))
_EINSTEIN_RADIUS = Parameter.fitted((0.5, 2.2), (0.05, 6.0), prior=(1.2, 0.4))

GALAXY_LIGHT = MultiGaussian(
    e1=_LIGHT_ELLIPTICITY, e2=_LIGHT_ELLIPTICITY, outer_e1=_LIGHT_ELLIPTICITY, outer_e2=_LIGHT_ELLIPTICITY
)


def galaxy_model(main_lens: str = "sie", order: int | None = None) -> LensModel:
    """Creates the model of a galaxy that is lensed by a galaxy.

    Mass follows light: normal priors tie the center of the mass to that of the light (standard deviation 0.03
    arcsec), and its ellipticity to 0.8 times that of the narrowest Gaussian of the light (standard deviation
    0.1).

    Args:
      main_lens: "sis" (singular isothermal sphere), "sie" (ellipsoid) or "epl" (elliptical power law).
      order: largest order of the shapelets that describe the source; if None, 8, or up to 16 if the arcs
        require it.

    Returns:
      The model.

    Raises:
      UserError: if `main_lens` is not one of these, or `order` is not from 0 to 30.
    """
    if main_lens not in MAIN_LENSES:
        raise UserError(f"main_lens is {main_lens!r}; expected one of {', '.join(MAIN_LENSES)}")
    main = MAIN_LENSES[main_lens](theta_E=_EINSTEIN_RADIUS)
    source = Shapelets(order=8, max_order=16) if order is None else Shapelets(order=order)
    tied = [("center_x", 1.0, 0.03), ("center_y", 1.0, 0.03), ("e1", 0.8, 0.1), ("e2", 0.8, 0.1)]
    return LensModel(
        mass=(main, Shear(gamma1=_SHEAR, gamma2=_SHEAR)),
        lens_light=(GALAXY_LIGHT,),
        source=(source,),
        priors=tuple(
            Prior(((f"mass.0.{name}", 1.0), (f"lens_light.0.{name}", -part)), 0.0, deviation)
            for name, part, deviation in tied
            if name in component_parameters(main)
        ),
    )


GALAXY = galaxy_model()  # the default of `fit`
