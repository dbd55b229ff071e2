"""
Look at parts of a large image
==============================

The result for a dask array is a dask array: nothing is computed until a part is asked for. If range and noise are
given, only this part is read and computed, and its pixels are those of the whole result.
"""

import dask.array as da
import numpy as np
from skimage import data

from vdsr_core import super_resolve, survey

image = np.tile(data.camera(), (4, 4))
lazy = da.from_array(image, chunks=(512, 512))

ranges, noises = survey(lazy)
result = super_resolve(lazy, 2, in_range=ranges, noise=noises, tile=256)
print(result)

part = result[1000:1100, 2000:2100].compute()

# %%
# The same window of the whole, computed directly:

window = super_resolve(image, 2, tile=256, window=(slice(1000, 1100), slice(2000, 2100)))
print("largest difference:", int(np.abs(part.astype(int) - window).max()))
