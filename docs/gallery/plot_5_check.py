"""
Check what was added
====================

A network predicts detail that was not measured. Two questions can be answered without knowing the truth: What did the
network add to plain interpolation? Does the result agree with the source if it is reduced again?
"""

from importlib import resources

import matplotlib.pyplot as plt
import numpy as np

from vdsr_core import degrade, read_image, resize, super_resolve

with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as path:
    low = read_image(path).data[0, 40:160, 80:200].astype(np.float32)

result = super_resolve(low, 2)
added = result - resize(low, 2)
disagreement = degrade(result, 2) - low

span = np.percentile(np.abs(added), 99.5)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4))
axes[0].imshow(result, cmap="gray")
axes[0].set_title("result")
for axis, image, name in zip(axes[1:], (added, disagreement), ("added detail", "reduced - source"), strict=True):
    axis.imshow(image, cmap="PuOr", vmin=-span, vmax=span)
    axis.set_title(name)
for axis in axes:
    axis.axis("off")
figure.tight_layout()
print(f"added: {added.std():.1f}, disagreement: {disagreement.std():.1f}, in the units of the image (RMS)")
