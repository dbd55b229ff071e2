"""
Upscale channels of a stack
===========================

``channel_axis`` says which axis holds channels. Each channel has its own range of intensities; all other axes before
rows and columns hold independent planes. The result has the dtype and the intensities of the source.
"""

from importlib import resources

import matplotlib.pyplot as plt

from vdsr_core import read_image, super_resolve

with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as path:
    cells = read_image(path)
low = cells.data[:, 40:140, 80:180]  # three channels: DNA, endoplasmic reticulum, actin and Golgi

result = super_resolve(low, 2, channel_axis=0, model="microscopy")
print(low.shape, low.dtype, "->", result.shape, result.dtype)

figure, axes = plt.subplots(2, 3, figsize=(9, 6))
for channel in range(3):
    for axis, image in zip(axes[:, channel], (low[channel], result[channel]), strict=True):
        axis.imshow(image, cmap="gray", vmin=low[channel].min(), vmax=low[channel].max())
        axis.axis("off")
axes[0, 0].set_title("source")
axes[1, 0].set_title("upscaled by 2")
figure.tight_layout()
