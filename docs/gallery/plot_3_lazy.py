"""
Look at parts of a large image
==============================

A dask array gives a dask array: nothing is computed until a part is asked for. With the range given, only the tiles of
that part are computed, and they are the pixels of the whole result.
"""

import dask.array as da
import numpy as np
from skimage import data

from vdsr_core import find_range, super_resolve

image = np.tile(data.camera(), (4, 4))
lazy = da.from_array(image, chunks=(512, 512))

result = super_resolve(lazy, 2, in_range=find_range(lazy), tile=256)
print(result)

part = result[1000:1100, 2000:2100].compute()

# %%
# The same window of the whole, computed directly:

window = super_resolve(image, 2, in_range=find_range(image), tile=256, window=(slice(1000, 1100), slice(2000, 2100)))
print("largest difference:", int(np.abs(part.astype(int) - window).max()))
