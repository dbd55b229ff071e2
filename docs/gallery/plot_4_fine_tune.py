"""
Fine-tune on your own images
============================

A network learns what images like yours look like. A part of the images is held out, and the card of the new network
says how much was gained on this part. This run is much too short to be useful; a good one takes a thousand steps.
"""

from importlib import resources

from vdsr_core import fine_tune, read_image

with resources.as_file(resources.files("vdsr_core") / "sample" / "u2os.tif") as path:
    channels = list(read_image(path).data)

model = fine_tune(channels, scales=[2], steps=10, batch_size=4)
print(model.card["summary"])
