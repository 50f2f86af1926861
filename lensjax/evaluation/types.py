"""Array types that signatures share."""

import numpy as np
from jaxtyping import Float, Integer

Labels = Integer[np.ndarray, " n"]  # class index of each image
Probabilities = Float[np.ndarray, "n classes"]
