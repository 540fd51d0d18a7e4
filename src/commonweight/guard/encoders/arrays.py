"""Array types of the guard."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
