"""Images of an isothermal sphere with shear, as roots of a polynomial in NumPy."""

import numpy as np


def images(theta_E, gamma1, gamma2, beta_x, beta_y):
    """Positions of all images, of shape (images, 2).

    An image in the direction n is at theta = M^-1 (beta + theta_E n), with M = 1 - shear. The condition that
    theta is parallel to n is a polynomial of degree four in exp(i phi).
    """
    shear = np.array([[gamma1, gamma2], [gamma2, -gamma1]])
    beta = np.array([beta_x, beta_y])
    along = (np.eye(2) + shear) @ beta
    # along x n + theta_E (shear n) x n = 0, with cos and sin in terms of z = exp(i phi), times z^2.
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
