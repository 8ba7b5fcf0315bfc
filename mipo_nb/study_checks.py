"""Self-checks of the exercises in the studies, notebooks 40 to 44, as in `checks`."""

import numpy as np

from mipo_nb import checking
