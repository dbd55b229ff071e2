"""Weights that other programs saved, as the arrays of a network. Nothing in a file is executed."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from vdsr_core.memory import check_free

PACKED = "network.safetensors"  # our own file in a BioImage.IO package
OURS, PACKAGE, NPZ, STATE, MATLAB, TENSORS = "ours", "package", "npz", "state dict", "MATLAB", "safetensors"
# Where whole checkpoints keep their state dict, and what they call the scales that they were trained for.
STATES = ("params_ema", "state_dict", "model_state_dict", "model", "params", "net", "network", "weights")
SCALES = ("scales", "scale", "upscale_factor")
# What files are by their first bytes, and by their suffix.
STARTS = {
    b"MATLAB 5.0": MATLAB,
    b"MATLAB 7.3": "a MATLAB file of version 7.3: save it with `-v7`",
    b"\x80": STATE,
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7767517": "a graph of ncnn",
    b"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull`",
    b"<": "a web page or another text: download the file itself",
}
SUFFIXES = {
    ".onnx": "an ONNX file: load the file that it was made from, or a .bioimageio.zip",
    ".tflite": "a TensorFlow Lite file",
    ".pb": "a TensorFlow graph",
    ".caffemodel": "a file of Caffe",
}
GROWTH, SMALL = 20, 2**26  # how many times its size a file may take, and bytes that any may take


def find_kind(path: Path) -> str:
    """What a file is, by its content: a kind that can be read, or a description of another one."""
    with path.open("rb") as stream:
        start = stream.read(512)
    if start[:2] == b"PK":
        return _find_archive(path)
    if start[8:9] == b"{":  # before the length of a header is taken for the beginning of a pickle
        with path.open("rb") as stream:
            header = stream.read(min(int.from_bytes(stream.read(8), "little"), 1 << 26))
        if _is_json(header):
            return OURS if b'"config"' in header else TENSORS
    for first, kind in STARTS.items():
        if start.startswith(first):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if start[8:9] == b"{":
        return OURS  # a damaged one
    return SUFFIXES.get(path.suffix.lower(), OURS)


def _is_json(header: bytes) -> bool:
    try:
        return bool(json.loads(header))
    except (ValueError, RecursionError):
        return False


def _find_archive(path: Path) -> str:
    """What a zip archive is."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        msg = f"{path} is a damaged zip archive: {error}. Copy or save it again."
        raise ValueError(msg) from error
    check_growth(path, size)
    if PACKED in names:
        return PACKAGE
    if {"rdf.yaml", "bioimageio.yaml"} & set(names):
        return "a BioImage.IO package of another program, without our network.safetensors"
    if any("/code/" in name for name in names):
        return "a TorchScript program: save the `state_dict()` of the network instead"
    if any(name.endswith("data.pkl") for name in names):
        return STATE if size <= 2 * path.stat().st_size else "a compressed archive, which PyTorch does not write"
    return NPZ if all(name.endswith(".npy") for name in names) else "a zip archive: unpack it first"


def check_growth(path: Path, size: int) -> None:
    """Raise if what a file says that it holds, in bytes, is far more than trained weights can be packed into."""
    most = max(GROWTH * path.stat().st_size, SMALL)
    if size > most:
        msg = f"{path} must not grow much when it is unpacked, got {size / 1e9:.3g} GB, more than {most / 1e9:.3g} GB. "
        msg += "Save the weights without compression."
        raise ValueError(msg)
    check_free(size, f"{path}, unpacked,", "Load it on a larger machine.")


@contextmanager
def unpack(path: Path) -> Iterator[Path]:
    """Our own file in a BioImage.IO package, in a temporary folder."""
    with TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        if archive.getinfo(PACKED).file_size > 2 * path.stat().st_size:
            msg = f"{path} must hold {PACKED} as large as its weights, got a file that grows when it is unpacked."
            raise ValueError(msg)
        yield Path(archive.extract(PACKED, folder))


def read_foreign(path: Path, kind: str) -> tuple[dict[str, Tensor], tuple[float, ...]]:
    """The arrays of a network, ``weight_00``, ``bias_00``, and so on, and the scales that the file claims.

    `kind` is from `find_kind`. A ValueError says what else than a plain stack of 3 x 3 convolutions the file holds.
    """
    if kind == NPZ:
        arrays = _read_npz(path)
        ours = all(re.fullmatch(r"(weight|bias)_\d\d", name) for name in arrays)
        return arrays if ours else _order(arrays, path), ()
    if kind == MATLAB:
        return _read_matlab(path), ()
    if kind == TENSORS:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys(), key=_natural)
            return _order({name: file.get_tensor(name) for name in names}, path), ()
    if kind == STATE:
        state, scales = _find_state(_read_pickle(path), path)
        return _order(state, path), scales
    msg = f"{path} must be a network, got {kind}. Networks are .safetensors, .npz, .pth, .mat or .bioimageio.zip files."
    raise ValueError(msg)


def _natural(name: str) -> list[Any]:
    """Sorts layer 10 behind layer 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: _to_tensor(file[name]) for name in file.files}
    except Exception as error:  # NumPy and zipfile raise many kinds for what is not an .npz file
        msg = f"{path} is not an .npz file of plain arrays: {error}. Save it with `numpy.savez`."
        raise ValueError(msg) from error


def _to_tensor(array: NDArray[Any]) -> Tensor:
    """An array, of any byte order, as a Tensor."""
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, if it is made of tensors and plain Python types."""
    try:
        with path.open("rb") as stream, warnings.catch_warnings():  # given a path, PyTorch looks at its suffix
            warnings.simplefilter("ignore")  # pickles of other programs
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|class (\S+)", str(error))
        what = (found[1] or found[2]) if found else _name_globals(path)
        msg = f"{path} must hold tensors alone, got a pickle that calls `{what}`. It could run any code, so it is "
        msg += "refused. Save `model.state_dict()` where it was made."
        raise ValueError(msg) from error
    except Exception as error:  # PyTorch raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        msg = f"{path} is not a file of `torch.save`, or is damaged: {reason}. Copy it again."
        raise ValueError(msg) from error


def _name_globals(path: Path) -> str:
    """The functions and classes that a pickle names, such as ``posix.system``."""
    names: list[str] = []
    words: list[str] = []
    with path.open("rb") as stream, suppress(ValueError):  # where the pickle ends or is damaged
        for code, argument, _ in pickletools.genops(stream):
            if code.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif code.name == "STACK_GLOBAL":
                names.append(".".join(words[-2:]))
            elif isinstance(argument, str):
                words.append(argument)
    return ", ".join(dict.fromkeys(names)) or "something unknown"


def _find_state(loaded: Any, path: Path) -> tuple[Mapping[str, Any], tuple[float, ...]]:
    """The state dict in a checkpoint, and the scales that it claims."""
    scales: tuple[float, ...] = ()
    for _ in range(4):  # a dict may hold itself
        if not isinstance(loaded, Mapping):
            break
        for name in SCALES:
            claims: Any = loaded.get(name)
            numbers = claims if isinstance(claims, list | tuple) else [claims]
            if not scales and all(isinstance(number, int | float) and 1 < number < 100 for number in numbers):
                scales = tuple(float(number) for number in numbers)
        inner = next((loaded[name] for name in STATES if isinstance(loaded.get(name), Mapping)), None)
        loaded = loaded if inner is None else inner
    if isinstance(loaded, Mapping) and loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return loaded, scales
    got = f"a dict of {', '.join(map(repr, list(loaded)[:5]))}" if isinstance(loaded, Mapping) else repr(type(loaded))
    msg = f"{path} must hold a state dict, itself or as one of {', '.join(STATES)}, got {got}. "
    msg += "Save `model.state_dict()`."
    raise ValueError(msg)


def _order(arrays: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The layers of a plain stack, found by their shapes; those between the first and the last keep their order."""
    filters = {name: array for name, array in arrays.items() if array.ndim == 4}
    first = [name for name, array in filters.items() if array.shape[1] < array.shape[0]]
    last = [name for name, array in filters.items() if array.shape[0] < array.shape[1]]
    hidden = [name for name in filters if name not in first + last]
    layers = [*first, *hidden, *last]
    biases = {name: name.removesuffix("weight") + "bias" for name in layers}
    rest = [name for name in arrays if name not in layers and name not in biases.values()]
    odd = rest or [name for name in layers if filters[name].shape[2:] != (3, 3)]
    if len(first) == len(last) == 1 and (filters[first[0]].shape[1], filters[last[0]].shape[0]) != (1, 1):
        odd = [*first, *last]
    if odd or len(first) != 1 or len(last) != 1:
        shown = odd or [*first[:2], *last[:2]] or list(arrays)[:2]
        got = ", ".join(f"{name} of shape {tuple(arrays[name].shape)}" for name in shown[:3]) or "no arrays"
        msg = f"{path} must hold a plain stack of 3 x 3 convolutions, from 1 channel to 1 channel, got {got}. "
        msg += "It is another network than VDSR."
        raise ValueError(msg)
    found = {}
    for number, name in enumerate(layers):
        found[f"weight_{number:02d}"] = _whole(filters[name], name, path)
        bias = arrays.get(biases[name], torch.zeros(filters[name].shape[0]))
        found[f"bias_{number:02d}"] = _whole(bias, biases[name], path)
    return found


def _whole(array: Tensor, name: str, path: Path) -> Tensor:
    """An array, unless it claims more values than its file holds."""
    if array.layout is not torch.strided or array.nbytes > array.untyped_storage().nbytes():
        msg = f"{path}: {name} must hold all its values, got fewer than its shape says. It is damaged."
        raise ValueError(msg)
    return array


def _read_matlab(path: Path) -> dict[str, Tensor]:
    """The network in a MATLAB file: a cell array or struct of filters, (3, 3, in, out), and of biases, in order."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # SciPy raises many kinds for a damaged file
        msg = f"{path} is not a MATLAB file, or is damaged: {error}. Save it with `-v7`."
        raise ValueError(msg) from error
    arrays = [array for name, value in content.items() if not name.startswith("__") for array in _singles(value)]
    filters = [array.reshape(*array.shape, *(1,) * (4 - array.ndim)) for array in arrays if array.ndim in (3, 4)]
    biases = [array.reshape(-1) for array in arrays if array.ndim == 2]
    if not filters or len(biases) not in (0, len(filters)):
        msg = f"{path} must hold filters, (3, 3, in, out), and as many biases, in single precision, "
        msg += f"got {len(filters)} and {len(biases)}. It is another network than VDSR."
        raise ValueError(msg)
    biases = biases or [np.zeros(array.shape[-1], np.float32) for array in filters]
    named = {f"{number}.weight": _to_tensor(array.transpose(3, 2, 0, 1)) for number, array in enumerate(filters)}
    named |= {f"{number}.bias": _to_tensor(array) for number, array in enumerate(biases)}
    return _order(named, path)


def _singles(value: Any) -> Iterator[NDArray[np.float32]]:
    """All arrays in single precision in a MATLAB value, depth first."""
    value = np.asarray(value)
    if value.dtype.names:
        for record in value.flat:
            for name in value.dtype.names:
                yield from _singles(record[name])
    elif value.dtype == object:
        for part in value.flat:
            yield from _singles(part)
    elif value.dtype == np.float32 and value.size:
        yield value
