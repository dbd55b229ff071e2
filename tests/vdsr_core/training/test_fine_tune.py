import copy
import re
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vdsr_core import (
    VDSR,
    ImageFile,
    VDSRConfig,
    calibrate,
    degrade,
    find_range,
    load_checkpoint,
    psnr,
    resize,
    save_checkpoint,
)
from vdsr_core.dataset.planes import find_pairs, find_planes, network_planes
from vdsr_core.dataset.split import split
from vdsr_core.evaluation import restore
from vdsr_core.images.intensity import Rescale
from vdsr_core.network.checkpoint import load_trainer
from vdsr_core.network.engine import Engine
from vdsr_core.network.model import Condition
from vdsr_core.training.fine_tune import fine_tune, fine_tune_steps, verdict
from vdsr_core.training.trainer import Trainer

QUICK = {"scales": [2], "steps": 3, "batch_size": 2, "patch": 16}


@pytest.fixture(autouse=True)
def _same_every_time(one_thread):
    torch.manual_seed(0)


@pytest.fixture
def start():
    torch.manual_seed(0)
    return VDSR(VDSRConfig(depth=4, width=8), scales=[2])


def rectangles(side, seed=0, dtype=np.uint16):
    """An image of sharp-edged rectangles: there is something to learn."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side))
    for _ in range(side):
        row, column = rng.integers(0, side - 4, 2)
        image[row : row + rng.integers(2, side // 4), column : column + rng.integers(2, side // 4)] = rng.random()
    return (image * 4000 + 100).astype(dtype)


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def shrink(model, factor):
    """Scale the residual: by 0, the network is bicubic interpolation."""
    with torch.no_grad():
        for parameter in model.convolutions[-1].parameters():
            parameter *= factor


def silently(function, *args, **kwargs):
    with warnings.catch_warnings(action="ignore"):
        return function(*args, **kwargs)


def test_fine_tuning_helps_and_its_card_is_true(start, tmp_path):
    """The card's figures are those of the returned network on the hold-out, and can be saved."""
    image = rectangles(128)
    shrink(start, 0.1)
    before = weights(start)
    start.restorer = "restore"
    options = {"steps": 450, "learning_rate": 5e-3, "batch_size": 8, "patch": 24, "patience": 9, "scales": [2]}
    tuned = silently(fine_tune, image, model=start, **options)
    assert torch.equal(weights(start), before)
    assert (start.restorer, tuned.restorer) == ("restore", None)
    scores = tuned.card["hold_out"]["2"]
    assert tuned.card["helped"]
    assert tuned.card["summary"].startswith("Fine-tuning helped, by ")
    assert scores["after"] > scores["bicubic"] + 0.3 > scores["before"]
    low, high = find_range(image)
    held = Rescale(low, high).forward(image)[128 - 26 :].astype(np.float32)
    back = resize(degrade(held.astype(np.float64), 2), 2)
    sr = restore(back * 255, Engine(tuned, torch.device("cpu")), Condition(scale=2)) / 255
    assert scores["bicubic"] == pytest.approx(psnr(held, back, data_range=1, crop_border=2), abs=1e-3)
    assert scores["after"] == pytest.approx(psnr(held, sr, data_range=1, crop_border=2), abs=1e-3)
    save_checkpoint(tmp_path / "tuned.safetensors", tuned)
    assert load_checkpoint(tmp_path / "tuned.safetensors").card == tuned.card


def test_where_it_does_not_help_the_start_is_kept_and_it_is_said(start, rng):
    shrink(start, 0)  # from noise nothing better can be learnt
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuned = fine_tune(rng.random((64, 64)), model=start, **QUICK | {"steps": 100, "learning_rate": 1.0})
    assert re.match(r"stuck at or below bicubic: .*Start again with a lower", str(caught[0].message))
    assert re.search(r"did not help: .* The weights are those of the start\.$", str(caught[1].message))
    assert torch.equal(weights(tuned), weights(start))
    assert not tuned.card["helped"]
    scores = tuned.card["hold_out"]["2"]
    assert scores["after"] == scores["before"] == scores["bicubic"]


def test_a_lone_number_is_a_scale(start):
    tuned = silently(fine_tune, rectangles(64), model=start, **QUICK | {"scales": 2})
    assert set(tuned.card["hold_out"]) == {"2"}


def test_a_result_below_bicubic_did_not_help():
    said = verdict({"2": 38.0}, {"2": 20.0}, {"2": 29.0}, 100)
    assert not said["helped"]
    assert said["summary"].startswith("Fine-tuning gained 9.00 dB, but not enough: 29.00 dB")
    assert "Plain bicubic interpolation is better here, by 9.00 dB" in said["summary"]
    assert verdict({"2": 38.0}, {"2": 37.0}, {"2": 38.1}, 100)["helped"]


@given(st.floats(30, 40), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_the_verdict_agrees_with_the_figures_as_shown(before, gain, lead):
    said = verdict({"2": before + gain - lead}, {"2": before}, {"2": before + gain}, 40)
    shown = round(said["hold_out"]["2"]["after"] - said["hold_out"]["2"]["before"], 2)
    over = round(said["hold_out"]["2"]["after"] - said["hold_out"]["2"]["bicubic"], 2)
    assert said["helped"] == (shown >= 0.05 and over >= 0) == said["summary"].startswith("Fine-tuning helped")
    assert ("did not help" in said["summary"]) == (shown <= 0)
    assert ("hardly" in said["summary"]) == (0 < shown < 0.05)
    assert ("interpolation is better" in said["summary"]) == (over < 0)
    assert said["helped"] or shown <= 0 or f"{shown:.2f} dB" in said["summary"]


def test_steps_keep_the_best_in_the_given_network(start):
    """Closing early leaves the best so far; it stops after `patience` validations without a better one."""
    options = QUICK | {"steps": 99, "optimizer": "adamw", "learning_rate": 1e-2}
    run = fine_tune_steps(start, rectangles(64), validate_every=1, patience=99, **options)
    gains = []
    for progress in run:
        gains.append(progress.gain)
        if len(gains) == 6:
            run.close()
    assert gains[-1] < max(gains) - 0.1
    scores = start.card["hold_out"]["2"]
    assert scores["after"] - scores["bicubic"] == pytest.approx(max(gains), abs=2e-3)
    assert "after 5 steps" in start.card["summary"]
    worse = fine_tune_steps(
        start, rectangles(64), validate_every=1, patience=3, learning_rate=1e-30, **QUICK | {"steps": 99}
    )
    assert len(silently(list, worse)) <= 5


def test_errors_are_those_of_the_held_out_part(start, tmp_path):
    image, path = rectangles(96), tmp_path / "tuned.safetensors"
    tuned = silently(fine_tune, image, model=start, **QUICK, hold_out=0.4)
    _, [(_, held)] = split(find_planes(image, (2,))[0], 0.4, start.halo)
    assert tuned.errors == calibrate(tuned, held, 2, in_range=(0, 1))
    steps = fine_tune_steps(copy.deepcopy(start), image, **QUICK, hold_out=0.4, checkpoint=path)
    silently(list, steps)
    assert load_checkpoint(path).errors == tuned.errors


def test_a_record_shows_a_held_out_part(start):
    network = copy.deepcopy(start)
    first, *_, last = silently(list, fine_tune_steps(network, rectangles(64), **QUICK | {"learning_rate": 1e-2}))
    assert first.step == 0
    assert first.scores == {"2": first.scores["2"] | {"after": first.scores["2"]["before"]}}
    np.testing.assert_array_equal(first.preview.before, first.preview.sr)
    np.testing.assert_array_equal(first.preview.before, last.preview.before)
    preview = last.preview
    for name, shown in (("bicubic", preview.ilr), ("before", preview.before), ("after", preview.sr)):
        found = psnr(preview.hr, shown, data_range=1, crop_border=2)
        assert last.scores["2"][name] == pytest.approx(found, abs=1e-3)
    assert last.gain == pytest.approx(last.scores["2"]["after"] - last.scores["2"]["bicubic"], abs=2e-3)


def test_resumed_is_uninterrupted(start, tmp_path):
    """A run that was closed or killed gives the weights and the card of one that was not."""
    options = QUICK | {"steps": 8, "learning_rate": 1e-2, "validate_every": 2, "added_noise": 0.01}
    image, path = rectangles(64), tmp_path / "run.safetensors"
    whole = copy.deepcopy(start)
    records = silently(list, fine_tune_steps(whole, image, **options))
    closed = fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, **options)
    while next(closed).step < 5:
        pass
    closed.close()
    killed = fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, resume=True, **options)
    while next(killed).step < 7:
        pass
    path.with_name("copy.safetensors").write_bytes(path.read_bytes())
    killed.close()
    path = path.with_name("copy.safetensors")
    resumed = copy.deepcopy(start)
    rest = silently(list, fine_tune_steps(resumed, image, checkpoint=path, resume=True, **options))
    assert [record.step for record in rest] == [7, 8]
    assert [(record.loss, record.gain) for record in rest] == [(record.loss, record.gain) for record in records[-2:]]
    assert torch.equal(weights(resumed), weights(whole))
    assert (resumed.card, resumed.errors) == (whole.card, whole.errors)
    assert load_trainer(path) is None
    saved = load_checkpoint(path)
    assert torch.equal(weights(saved), weights(whole))
    assert (saved.card, saved.errors) == (whole.card, whole.errors)


def test_resumed_waits_no_longer_than_uninterrupted(start, tmp_path):
    """Validations without a better network count across an interruption."""
    options = QUICK | {"steps": 99, "validate_every": 1, "patience": 3, "learning_rate": 1e-30}
    image, path = rectangles(64), tmp_path / "run.safetensors"
    run = fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, **options)
    while next(run).step < 2:
        pass
    run.close()
    rest = fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, resume=True, **options)
    while next(rest).step < 3:
        pass
    rest.close()  # after the last record, before its end
    rest = fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, resume=True, **options)
    assert silently(list, rest) == []
    assert load_trainer(path) is None


def test_a_finished_run_gives_its_network_at_once(start, tmp_path):
    """Also where a process was killed after the end; but not to a run with other images, options or start."""
    options = QUICK | {"learning_rate": 1e-2, "added_noise": 0.01}
    image, path = rectangles(64), tmp_path / "run.safetensors"
    tuned, again, other = (copy.deepcopy(start) for _ in range(3))
    silently(list, fine_tune_steps(tuned, image, checkpoint=path, **options))
    written = path.read_bytes()
    assert not torch.equal(weights(tuned), weights(start))
    assert list(fine_tune_steps(again, image, checkpoint=path, resume=True, **options)) == []
    assert torch.equal(weights(again), weights(tuned))
    assert (again.card, again.errors, again.scales) == (tuned.card, tuned.errors, tuned.scales)
    shrink(other, 0.5)
    for change in ({"images": rectangles(64, seed=1)}, {"seed": 1}, {"steps": options["steps"] + 1}, {"model": other}):
        arguments = {"model": start, "images": image} | options | change
        with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be th.* the run in"):
            fine_tune_steps(checkpoint=path, resume=True, **arguments)
    assert path.read_bytes() == written


def test_what_cannot_be_resumed(start, tmp_path):
    path = tmp_path / "run.safetensors"
    run = fine_tune_steps(start, rectangles(64), checkpoint=path, **QUICK)
    next(run)
    run.close()
    other = copy.deepcopy(start)
    shrink(other, 0.5)
    for change, message in (
        ({"images": rectangles(64, seed=1)}, "`images` must be those"),
        ({"seed": 1}, "`seed` must be that of the run"),
        ({"patch": 12}, r"`patch` must be that of the run in .*, 16, got 12\. Start again"),
        ({"validate_every": 2}, "`validate_every` must be that of the run"),
        ({"patience": 2}, "`patience` must be that of the run"),
        ({"model": other}, r"`model` must be that of the run in .*, [0-9a-f]{8}, got [0-9a-f]{8}"),
    ):
        options = {"model": start, "images": rectangles(64)} | QUICK | change
        with pytest.raises(ValueError, match=message):
            fine_tune_steps(checkpoint=path, resume=True, **options)
    save_checkpoint(path, start)
    with pytest.raises(ValueError, match="must hold an unfinished run"):
        fine_tune_steps(start, rectangles(64), checkpoint=path, resume=True, **QUICK)
    with pytest.raises(ValueError, match="`checkpoint` must name the file to resume"):
        fine_tune_steps(start, rectangles(64), resume=True, **QUICK)


def test_a_stopped_run_ends_within_a_step_and_can_be_gone_on_with(start, tmp_path, monkeypatch):
    options = QUICK | {"steps": 6, "learning_rate": 1e-2, "validate_every": 2, "batch_size": 6}
    image, path, stop = rectangles(64), tmp_path / "run.safetensors", threading.Event()
    whole = copy.deepcopy(start)
    silently(list, fine_tune_steps(whole, image, **options))
    differentiate, calls = Trainer._loss_and_gradients, []

    def stopping(self, *patches):
        calls.append(self.step)
        if calls.count(3) == 2:  # in the midst of the fourth step
            stop.set()
        return differentiate(self, *patches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_loss_and_gradients", stopping)
        stopped = silently(list, fine_tune_steps(copy.deepcopy(start), image, checkpoint=path, stop=stop, **options))
    assert [record.step for record in stopped] == [0, 1, 2, 3]
    assert calls.count(3) == 2
    resumed = copy.deepcopy(start)
    rest = silently(list, fine_tune_steps(resumed, image, checkpoint=path, resume=True, **options))
    assert [record.step for record in rest] == [4, 5, 6]
    assert torch.equal(weights(resumed), weights(whole))


def test_two_runs_do_not_write_one_checkpoint(start, tmp_path):
    path = tmp_path / "run.safetensors"
    first = fine_tune_steps(copy.deepcopy(start), rectangles(64), checkpoint=path, **QUICK)
    next(first)
    written = path.read_bytes()
    second = fine_tune_steps(copy.deepcopy(start), rectangles(64, seed=1), checkpoint=path, **QUICK)
    with pytest.raises(BlockingIOError, match=r"another one is writing\. Wait"):
        next(second)
    assert path.read_bytes() == written
    first.close()
    next(fine_tune_steps(copy.deepcopy(start), rectangles(64), checkpoint=path, **QUICK))


def test_an_image_file_says_what_its_axes_are(start):
    """A channel in the middle, and colour: the same as by the options."""
    image = np.stack([rectangles(32), rectangles(32, 1)], 1)
    colour = np.stack([rectangles(40, s) // 20 for s in range(3)], -1).astype(np.uint8)
    for data, axes, options in ((image, "YCX", {"channel_axis": 1}), (colour, "YXS", {"rgb": True})):
        by_options = silently(fine_tune, [data], model=start, **QUICK | options)
        by_file = silently(fine_tune, ImageFile(data, axes), model=start, **QUICK)
        assert torch.equal(weights(by_options), weights(by_file))


def test_blur_and_noise_are_those_of_degrade(start):
    """The hold-out is degraded as asked for, in the range that the network sees."""
    image = rectangles(64)
    _, plane = find_planes([image], [2])[0]["image 0"][0]
    held = plane[64 - 16 :]
    low = degrade(held, 2, blur=1.5, read_noise=0.05, seed=np.random.default_rng((0, 3)))
    run = fine_tune_steps(start, image, blur=1.5, added_noise=0.05, **QUICK)
    np.testing.assert_allclose(next(run).preview.ilr, resize(low, 2), atol=1e-6)
    assert start.card["recipe"].endswith("; blur 1.5 pixels, noise 0.05 of the range")


def test_theta_clips(start):
    options = QUICK | {"learning_rate": 1e-3, "theta": 1e-9}
    run = fine_tune_steps(start, rectangles(64), optimizer="adamw", **options)
    assert [record.clipped > 0.5 for record in silently(list, run)] == [False, True, True, True]


def test_pairs_must_be_registered(start):
    """A shift of several pixels is found and told; noise, blur and another brightness are not taken for one."""
    sharp = rectangles(96).astype(np.float64)
    low = degrade(sharp, 2, blur=1, read_noise=100, seed=0) * 0.7 + 50
    silently(fine_tune, pairs=[(low, sharp)], model=start, **QUICK)
    for shift in (-6, 8):
        with pytest.raises(ValueError, match=rf"shifted by {shift} rows and {-shift} columns in pair 0"):
            fine_tune(pairs=[(low, np.roll(sharp, (shift, -shift), (0, 1)))], model=start, **QUICK)


def test_pairs_must_show_one_field_of_view(start, rng):
    """The plane with most contrast is looked at; the pair is named as it is given."""
    sharp = np.stack([rng.normal(100, 5, (96, 96)), rectangles(96)])
    low = degrade(np.stack([rng.normal(100, 5, (96, 96)), sharp[1]]), 2, read_noise=20, seed=0)
    silently(fine_tune, pairs={"cells": (low, sharp)}, model=start, **QUICK)
    other = np.stack([sharp[0], rectangles(96, seed=4)])
    with pytest.raises(ValueError, match=r"hardly resemble each other in cells \(correlation -?0\.\d+\)\. Check which"):
        fine_tune(pairs={"good": (low, sharp), "cells": (low, other)}, model=start, **QUICK)


def test_pairs_of_image_files_are_those_of_arrays(start):
    sharp = np.stack([rectangles(64), rectangles(64, 1)], 1)
    low = degrade(np.moveaxis(sharp, 1, 0), 2)
    plain, files = (
        silently(fine_tune, pairs=[pair], model=start, **QUICK | options)
        for pair, options in (
            ((low, np.moveaxis(sharp, 1, 0)), {"channel_axis": 0}),
            ((ImageFile(low, "CYX"), ImageFile(sharp, "YCX")), {}),
        )
    )
    assert torch.equal(weights(plain), weights(files))


def test_warnings_are_in_the_records(start):
    """Too little data at once, overfitting once, and fine_tune warns of the latter."""
    options = QUICK | {"steps": 8, "learning_rate": 1.0, "validate_every": 1, "patience": 9}
    words = [record.warning for record in fine_tune_steps(copy.deepcopy(start), rectangles(64), **options)]
    assert words[0].startswith("There are only 11 patches to train with")
    assert [word[:11] for word in words[1:] if word] == ["overfitting"]
    with pytest.warns(UserWarning, match=r"overfitting: .*Add images"), pytest.warns(UserWarning, match="did not help"):
        fine_tune(rectangles(64), model=start, **options)


@pytest.mark.parametrize("in_range", [None, (0, 65535)])
def test_an_empty_channel_of_a_pair_leaves_the_others(in_range):
    empty = np.full((32, 32), 7, np.uint16)
    sharp = np.stack([rectangles(32), empty, rectangles(32, 1)])
    sources, _, skipped = find_pairs([(sharp // 2, sharp)], channel_axis=0, in_range=in_range)
    assert [len(source) for source in sources.values()] == [2]
    assert not skipped
    assert find_pairs([(empty, sharp[0])], in_range=in_range)[2] == {"pair 0": "constant"}


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (rectangles(32), {}),
        (rectangles(32, dtype=np.float32), {"scales": [2, 3, 4]}),
        (np.stack([rectangles(32), rectangles(32, 1) // 2, np.full((32, 32), 7, np.uint16)]), {"channel_axis": 0}),
        (np.stack([rectangles(40, s) // 20 for s in range(3)], -1).astype(np.uint8), {"rgb": True}),
        (np.stack([rectangles(24, s) for s in range(5)]), {}),
        (rectangles(16), {}),
        (rectangles(32), {"in_range": (0, 65535)}),
        ([rectangles(32), rectangles(40, dtype=np.int8), rectangles(50, dtype=np.float64)], {"scales": [1.5, 2.37]}),
        ({"a": rectangles(32), "flat": np.zeros((32, 32)), "small": rectangles(15)}, {"scales": [4]}),
    ],
)
def test_all_kinds_of_images_train(start, image, options):
    tuned = silently(fine_tune, image, model=start, **QUICK | options)
    expected = {f"{scale:.3g}" for scale in options.get("scales", [2])}
    assert set(tuned.card["hold_out"]) == expected
    assert all(np.isfinite(list(scores.values())).all() for scores in tuned.card["hold_out"].values())
    if isinstance(image, dict):
        assert "flat left out: constant, small left out: smaller than 16 x 16 pixels" in tuned.card["data"]
        assert "1 image (1 plane)" in tuned.card["data"]


def test_planes_are_what_super_resolve_maps(rng):
    image = (rng.random((3, 20, 24)) * [[[10]], [[1000]], [[0]]]).astype(np.uint16)
    planes = list(network_planes(image, channel_axis=0))
    assert planes[2] is None
    for plane, channel in zip(planes[:2], image[:2], strict=True):
        np.testing.assert_allclose(plane, Rescale(*find_range(channel)).forward(channel), rtol=1e-6)
    sources, skipped = find_planes({"x": image}, [2], channel_axis=0)
    assert len(sources["x"]) == 2
    assert skipped == {}


def test_pairs_train_by_the_range_of_the_low_image(start):
    sharp = rectangles(64)
    pairs = [(degrade(sharp, 2), sharp), (degrade(sharp.T, 2), sharp.T)]
    sources, scales, _ = find_pairs(pairs)
    assert scales == {"pair 0": 2, "pair 1": 2}
    ilr, hr, ratio = sources["pair 0"][0]
    assert ratio == 2
    rescale = Rescale(*find_range(pairs[0][0]))
    np.testing.assert_allclose(hr, rescale.forward(sharp), rtol=1e-6)
    np.testing.assert_allclose(ilr, resize(rescale.forward(pairs[0][0]), 2), atol=1e-5)
    tuned = silently(fine_tune, pairs=pairs, model=start, **QUICK | {"scales": None})
    assert list(tuned.card["hold_out"]) == ["pairs"]
    assert "2 pairs (2 planes)" in tuned.card["data"]
    one = silently(fine_tune, [sharp], pairs=[*pairs[:1], (np.zeros((9, 9)), np.ones((18, 18)))], model=start, **QUICK)
    assert set(one.card["hold_out"]) == {"2", "pairs"}
    assert "pair 1 left out: constant" in one.card["data"]


@pytest.mark.parametrize(("scale", "known"), [(2, (2.0,)), (1, (3.0,))])
def test_pairs_say_which_scales_were_learnt(tmp_path, start, scale, known):
    """Those of pairs of one size are the ones that the network knows."""
    sharp = rectangles(96).astype(np.float64)
    low = degrade(sharp, 2)
    low = low if scale == 2 else resize(low, 2)
    start.scales = (3.0,)
    shrink(start, 0.1)
    options = QUICK | {"scales": None, "steps": 60, "learning_rate": 2e-3, "batch_size": 8, "validate_every": 5}
    path = tmp_path / "run.safetensors"
    silently(list, fine_tune_steps(start, pairs=[(low, sharp)], checkpoint=path, **options))
    found = start.card["hold_out"]["pairs"]
    assert found["after"] > found["before"]
    assert load_checkpoint(path).scales == known


def test_the_same_seed_gives_the_same_network(start):
    first, second, other = (
        silently(fine_tune, rectangles(64), model=start, **QUICK | {"learning_rate": 1e-3, "seed": seed})
        for seed in (1, 1, 2)
    )
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "`images` must hold an image to train with, got none"),
        ({"a": np.ones((32, 32))}, {}, "got a: constant"),
        (np.random.default_rng(0).random((6, 40)), {}, "got image 0: smaller than 8 x 8 pixels"),
        (np.full((32, 32), np.nan), {}, "image 0: `image` must be finite"),
        (np.zeros((32, 32, 3)), {}, "image 0: `image` must declare its channels"),
        (rectangles(32).tolist(), {}, "got list as image 0. Use `numpy.asarray"),
        ("a.png", {}, "`images` must be an array, a list of arrays or a mapping, got str. Read files"),
        (["a.png"], {}, "got str as image 0. Use .* `read_image` for files"),
        (rectangles(32), {"patience": 0}, "`patience` must be an integer of at least 1, got 0"),
        (rectangles(32), {"validate_every": 1.5}, "`validate_every` must be an integer of at least 1, got 1.5"),
        (rectangles(32), {"hold_out": 1}, "`hold_out` must be a number between 0 and 1, got 1"),
        (rectangles(32), {"hold_out": "a"}, "`hold_out` must be a number between 0 and 1, got 'a'"),
        (rectangles(32), {"scales": 1.0001}, "`scales` must be finite numbers, at least 1.1, got 1.0001"),
        (rectangles(32), {"scales": ["a"]}, "`scales` must be numbers, one for both axes, got 'a'"),
        (rectangles(32), {"scales": []}, "`scales` must hold at least one scale"),
        (rectangles(32), {"learning_rate": -1}, "`learning_rate` .* got -1. Leave it out for the default"),
        (np.pad(rectangles(64), ((0, 64), (0, 0))), {}, "held-out part must have detail, got a flat one"),
        ([], {"pairs": (rectangles(32), rectangles(32))}, "`pairs` must hold two images each"),
        ([], {"pairs": 5}, "`pairs` must be a list of"),
        ([], {"pairs": [(rectangles(32), 5)]}, "pair 0: `image` must have at least 2 axes"),
        (rectangles(32), {"steps": 0}, "`steps` must be an integer of at least 1"),
        (rectangles(32), {"pairs": [(rectangles(32), rectangles(24))]}, "`pairs` must show one field of view.*pair 0"),
    ],
)
def test_bad_input_is_named_before_the_first_step(start, images, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fine_tune_steps(copy.deepcopy(start), images, **QUICK | options)
