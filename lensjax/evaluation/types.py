"""Array types of labels and probabilities."""

import numpy as np
from jaxtyping import Float, Integer

Labels = Integer[np.ndarray, " n"]  # class index of each image
Probabilities = Float[np.ndarray, "n classes"]
