"""Lenses for tests of the lens physics."""

from lensjax import physics


def sheared(theta_E, gamma1, gamma2):
    """Deflection function of an isothermal sphere with external shear."""

    def deflection(x, y):
        sphere = physics.sis_deflection(x, y, theta_E)
        shear = physics.external_shear_deflection(x, y, gamma1, gamma2)
        return sphere[0] + shear[0], sphere[1] + shear[1]

    return deflection
