"""Measure the errors of a network on held-out images and write them into its file; its weights stay as they are.

    python benchmarks/calibrate.py NETWORK FOLDER [--groups CREDITS.csv] [--along FOLDER ...] [--all]

NETWORK is a file of ours, which is replaced, or the name of an embedded network. Of FOLDER the images are used that
`vdsr train FOLDER ... --groups CREDITS.csv` holds out (--along names the other folders of that training), or all.
"""

import argparse
import fnmatch
import time
from pathlib import Path

from vdsr_core import calibrate, load_model, model_names, read_folder, save_checkpoint
from vdsr_core.cli.train import HOLD_OUT
from vdsr_core.dataset.planes import find_planes
from vdsr_core.dataset.split import find_content, read_groups, split
from vdsr_core.network.pretrained import SUFFIX, folder


def read_images(folders, leave_out=()):
    """The images of folders by path; files whose names match a pattern are left out."""
    found = {str(path): image for each in folders for path, image in read_folder(each)}
    return {
        name: image
        for name, image in found.items()
        if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in leave_out)
    }


def find_held_out(images, others, halo, groups):
    """Those of the images that are held out of a training with the others."""
    sources, _ = find_planes(images | others, (2,))
    marks = read_groups(groups, {name: Path(name) for name in sources}) if groups else None
    held = frozenset().union(*(find_content([both]) for both in split(sources, HOLD_OUT, halo, groups=marks)[1]))
    return {name: image for name, image in images.items() if name in sources and find_content(sources[name]) & held}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--along", type=Path, nargs="*", default=[])
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="PATTERN", help="files that are not used")
    parser.add_argument("--all", action="store_true", help="use all images: the network was trained with others")
    parser.add_argument("--scales", type=float, nargs="*", default=[1.25, 2, 3, 4])
    parser.add_argument("--pieces", type=int, default=48)
    options = parser.parse_args()
    start = time.perf_counter()
    model = load_model(options.network)
    images = read_images([options.folder], options.leave_out)
    if not options.all:
        images = find_held_out(images, read_images(options.along), model.halo, options.groups)
    model.errors = calibrate(model, images, options.scales, pieces=options.pieces)
    embedded = options.network in model_names()
    save_checkpoint(folder() / f"{options.network}{SUFFIX}" if embedded else options.network, model)
    print(f"{len(images)} images, {time.perf_counter() - start:.0f} s")
    steps = [(f", noise {level:g}", table) for level, table in model.errors.noisy]
    steps += [(f", compression {level:.2f}", table) for level, table in model.errors.compressed]
    for words, table in [("", model.errors), *steps]:
        for scale, detail, mean, bound in zip(table.scales, table.detail, table.mean, table.bound, strict=True):
            middle = len(detail) // 2
            print(f"x{scale:g}{words}: detail {detail[middle]:.4f} mean {mean[middle]:.4f} bound {bound[middle]:.4f}")


if __name__ == "__main__":
    main()
