"""
Upscale a photograph
====================

``rgb=True`` says that the image is in colour: luma (brightness) goes through the network, and chroma is interpolated.
The photograph is reduced first, so that the result can be compared with the truth.
"""

import matplotlib.pyplot as plt
from skimage import data

from vdsr_core import degrade, psnr, resize, super_resolve

truth = data.astronaut()[:192, 120:312]
channels_first = degrade(truth.transpose(2, 0, 1), 2)  # degrade takes (..., rows, columns)
low = channels_first.transpose(1, 2, 0)

bicubic = resize(channels_first, 2).transpose(1, 2, 0)
result = super_resolve(low, 2, rgb=True)

# %%
# The peak signal-to-noise ratio (PSNR, in dB) says how close each image is to the truth; higher is better.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.4))
for axis, image, name in zip(axes, (bicubic, result, truth), ("bicubic", "network", "truth"), strict=True):
    axis.imshow(image)
    quality = "" if image is truth else f", {psnr(truth, image, data_range=255):.2f} dB"
    axis.set_title(name + quality)
    axis.axis("off")
figure.tight_layout()
