"""Images of a point source behind an isothermal sphere with shear, from the roots of a polynomial."""

import numpy as np


def images(theta_E, gamma1, gamma2, beta_x, beta_y):
    """Positions of all images, of shape (images, 2).

    An image in the direction n = (cos phi, sin phi) is at theta = M^-1 (beta + theta_E n), where M is the
    identity minus the shear. The condition that theta is parallel to n is a polynomial equation of degree
    four in exp(i phi).
    """
    shear = np.array([[gamma1, gamma2], [gamma2, -gamma1]])
    beta = np.array([beta_x, beta_y])
    along = (np.eye(2) + shear) @ beta
    # The cross product `along` x n + theta_E (shear n) x n = 0, multiplied by z^2 for z = exp(i phi).
    first = along[0] / 2j - along[1] / 2
    second = theta_E * (gamma1 / 2j - gamma2 / 2)
    found = []
    for root in np.roots([second, first, 0, np.conj(first), np.conj(second)]):
        if abs(abs(root) - 1) < 1e-6:
            direction = np.array([root.real, root.imag]) / abs(root)
            theta = np.linalg.solve(np.eye(2) - shear, beta + theta_E * direction)
            if theta @ direction > 0:
                found.append(theta)
    return np.array(found).reshape(-1, 2)
