"""Lenses for tests of the lens physics."""

from lensjax import physics

# Parameters of a simulated scene, and their names in a fit, in the order of `fitting.COMMON_TEST`.
FITTED = {
    "theta_E": "mass.0.theta_E",
    "gamma1": "mass.1.gamma1",
    "gamma2": "mass.1.gamma2",
    "source_x": "source.0.center_x",
    "source_y": "source.0.center_y",
    "source_e1": "source.0.e1",
    "source_e2": "source.0.e2",
}


def sheared(theta_E, gamma1, gamma2):
    """Deflection function of an isothermal sphere with external shear."""

    def deflection(x, y):
        sphere = physics.sis_deflection(x, y, theta_E)
        shear = physics.external_shear_deflection(x, y, gamma1, gamma2)
        return sphere[0] + shear[0], sphere[1] + shear[1]

    return deflection
