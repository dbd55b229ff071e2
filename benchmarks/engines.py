"""The same network through every engine that is installed, and through `super_resolve`, on a CPU.

    python benchmarks/engines.py [--sizes 256 512] [--threads 2] [--repeats 3] [--full] [--only ncnn ours]
    python benchmarks/engines.py --whole 1024 [--tiles 512 1024 2048]

The first form runs one square image of each size (in output pixels) through each engine, in turns, in one piece:

    nchw           PyTorch as other implementations run it: layers and ReLU in place, contiguous
    channels_last  the same in PyTorch's other memory format
    compiled       the same through torch.compile (where a C++ compiler is)
    bfloat16       all layers but the first and the last in bfloat16, as in training on CPUs that multiply in it
    strips         the library's PyTorch engine on one block: strip by strip
    blocks         the library's PyTorch engine: a block for each core
    onnxruntime, openvino, opencv    the network as ONNX
    ncnn           with its own padding, the whole image at once
    ncnn strips    the library's ncnn engine in one process
    ncnn workers   the library's ncnn engine: a process for each core
    ncnn wide      the same in strips as wide as the image, of 16 rows
    ours           `super_resolve` of an image of half the side: interpolation, tiles, rounding, checks included

GFLOP/s are effective: as if every convolution were computed directly. "CPU" is the same per second of processor time,
which other jobs on the machine disturb less. "speed" is the median over the turns of the ratio to channels_last.
Memory is the peak of a process of its own, above what it holds when the engine is loaded. "difference" is the largest
one from PyTorch in float64 (for `ours` not known here; its tests say it).

`--full` takes sizes 96 to 1024 and 1 and 2 threads. The second form is what a user waits for: `super_resolve` of a
square uint16 image at x2 against one forward pass of the whole result, and against ncnn's bare speed at its best size.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from measuring import MB, make_image, make_parser, peak_memory, processor_time, take_turns
from numpy.typing import NDArray
from torch import nn

from vdsr_core.network.checkpoint import load_model
from vdsr_core.network.model import VDSR
from vdsr_core.network.torch_strips import residual, residual_strips
from vdsr_core.upscaling.inference import super_resolve

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]  # (H, W) interpolated image -> residual
FULL = (96, 128, 192, 256, 384, 512, 768, 1024)


# ------------------------------------------ engines: (network, threads) -> Run
def make_torch(model: VDSR, threads: int, *, memory_format: torch.memory_format, compiled: bool = False) -> Run:
    """PyTorch, as most implementations run it."""
    layers = [module for layer in copy.deepcopy(model.convolutions) for module in (layer, nn.ReLU(inplace=True))]
    plain: Any = nn.Sequential(*layers[:-1]).eval().requires_grad_(False).to(memory_format=memory_format)
    network = torch.compile(plain) if compiled else plain

    def run(ilr: Floats) -> Floats:
        torch.set_num_threads(threads)
        with torch.no_grad():
            x = torch.from_numpy(ilr)[None, None].contiguous(memory_format=memory_format)
            return network(x)[0, 0].numpy()  # type: ignore[no-any-return]

    return run


def make_bfloat16(model: VDSR, threads: int) -> Run:
    """PyTorch, the inner layers in bfloat16."""
    network = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(ilr: Floats) -> Floats:
        torch.set_num_threads(threads)
        with torch.no_grad():
            x = torch.from_numpy(ilr)[None, None].contiguous(memory_format=torch.channels_last)
            return network.residual(x, half=torch.bfloat16)[0, 0].numpy()  # type: ignore[no-any-return]

    return run


def make_strips(model: VDSR, threads: int) -> Run:
    """PyTorch, strip by strip."""
    network = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def run(ilr: Floats) -> Floats:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return torch.cat(list(residual_strips(network, torch.from_numpy(ilr)[None, None])), 2)[0, 0].numpy()

    return run


def make_blocks(model: VDSR, threads: int) -> Run:
    """PyTorch, a block for each core."""
    network = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def run(ilr: Floats) -> Floats:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return residual(network, torch.from_numpy(ilr)[None, None])[0, 0].numpy()  # type: ignore[no-any-return]

    return run


def to_onnx(model: VDSR) -> bytes:
    """The network in the format that other engines read."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, arrays, name = [], [], "x0"
    for i, layer in enumerate(model.convolutions):
        for kind, parameter in layer.named_parameters():
            arrays.append(numpy_helper.from_array(parameter.detach().numpy(), f"{kind}{i}"))
        last = i == len(model.convolutions) - 1
        target = "out" if last else f"y{i}"
        inputs = [name, f"weight{i}", f"bias{i}"]
        nodes.append(helper.make_node("Conv", inputs, [target], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        if not last:
            name = f"x{i + 1}"
            nodes.append(helper.make_node("Relu", [target], [name]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, "rows", "columns"]) for n in ("x0", "out")]
    graph = helper.make_graph(nodes, "vdsr", ends[:1], ends[1:], arrays)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()  # type: ignore[no-any-return]


def make_onnxruntime(model: VDSR, threads: int) -> Run:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(to_onnx(model), options, providers=["CPUExecutionProvider"])
    return lambda ilr: session.run(None, {"x0": ilr[None, None]})[0][0, 0]  # type: ignore[no-any-return]


def make_openvino(model: VDSR, threads: int) -> Run:
    """OpenVINO, in float32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(to_onnx(model)), "CPU", options)
    return lambda ilr: compiled([ilr[None, None]])[0][0, 0]  # type: ignore[no-any-return]


def make_opencv(model: VDSR, threads: int) -> Run:
    """OpenCV's own engine."""
    import cv2

    network = cv2.dnn.readNetFromONNX(np.frombuffer(to_onnx(model), np.uint8))

    def run(ilr: Floats) -> Floats:
        cv2.setNumThreads(threads)
        network.setInput(ilr[None, None])
        return network.forward()[0, 0]  # type: ignore[no-any-return]

    return run


def make_ncnn(model: VDSR, threads: int) -> Run:
    """ncnn, the whole image at once."""
    import ncnn

    layers = model.convolutions
    lines = ["Input x0 0 1 x0"]
    for i, layer in enumerate(layers):
        relu = " 9=1" if i < len(layers) - 1 else ""
        size = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}"
        lines.append(f"Convolution conv{i} 1 1 x{i} x{i + 1} {size}{relu}")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param_mem("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""]))
    arrays = [p.detach().numpy().tobytes() for layer in layers for p in (layer.weight, layer.bias)]
    net.load_model_mem(b"".join(bytes(4) + w + b for w, b in zip(arrays[::2], arrays[1::2], strict=True)))

    def run(ilr: Floats) -> Floats:
        extractor = net.create_extractor()
        extractor.input("x0", ncnn.Mat(ilr[None]))
        return np.array(extractor.extract(f"x{len(layers)}")[1])[0]

    return run


def make_ncnn_strips(model: VDSR, threads: int) -> Run:
    """The library's engine in one process."""
    from vdsr_core.network.ncnn_network import NcnnNetwork

    return NcnnNetwork(to_layers(model), threads).residual


def make_ncnn_workers(model: VDSR, threads: int) -> Run:
    """The library's engine."""
    from vdsr_core.network.ncnn_network import NcnnNetwork
    from vdsr_core.network.ncnn_workers import NcnnWorkers

    layers = to_layers(model)
    return NcnnWorkers(layers, NcnnNetwork(layers, threads), threads).residual


def to_layers(model: VDSR) -> list[tuple[Floats, Floats]]:
    """The weights and biases."""
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in model.convolutions]


def make_ncnn_wide(model: VDSR, threads: int) -> Run:
    """The same in strips as wide as the image, of 16 rows."""
    from vdsr_core.network.ncnn_network import NcnnNetwork

    network = NcnnNetwork(to_layers(model), threads)
    return lambda ilr: np.concatenate(list(network.residual_strips(ilr, 16)))


def make_ours(model: VDSR, threads: int, tile: int = 1024) -> Run:
    """All that a user gets; the image has half the side."""

    def run(ilr: Floats) -> Floats:
        torch.set_num_threads(threads)
        image = (ilr[::2, ::2] * 4000).astype(np.uint16)
        return super_resolve(image, 2, model=model, tile=tile, device="cpu")  # type: ignore[return-value]

    return run


def has_compiler() -> bool:
    """Whether torch.compile can work on a CPU."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:
        return False


MAKERS: dict[str, Callable[[VDSR, int], Run]] = {
    "nchw": lambda m, t: make_torch(m, t, memory_format=torch.contiguous_format),
    "channels_last": lambda m, t: make_torch(m, t, memory_format=torch.channels_last),
    "compiled": lambda m, t: make_torch(m, t, memory_format=torch.channels_last, compiled=True),
    "bfloat16": make_bfloat16,
    "strips": make_strips,
    "blocks": make_blocks,
    "onnxruntime": make_onnxruntime,
    "openvino": make_openvino,
    "opencv": make_opencv,
    "ncnn": make_ncnn,
    "ncnn strips": make_ncnn_strips,
    "ncnn workers": make_ncnn_workers,
    "ncnn wide": make_ncnn_wide,
    "ours": make_ours,
}
NEEDS = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "opencv": ("onnx", "cv2"),
    "ncnn": ("ncnn",),
    "ncnn strips": ("ncnn",),
    "ncnn workers": ("ncnn",),
    "ncnn wide": ("ncnn",),
}


def available() -> list[str]:
    """The engines that are installed."""
    names = [name for name in MAKERS if all(find_spec(module) for module in NEEDS.get(name, ()))]
    return names if has_compiler() else [name for name in names if name != "compiled"]


# ------------------------------------------ measuring
def noise(size: int) -> Floats:
    """An interpolated image as good as any."""
    return np.random.default_rng(0).random((size, size), dtype=np.float32)


def memory_of(name: str, size: int, threads: int) -> float:
    """The peak of an engine in a process of its own, MB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name, str(size), str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / MB


def measure_memory(model: VDSR, name: str, size: int, threads: int) -> None:
    """Print the peak of one engine in this process, above what it holds when it is loaded."""
    run = MAKERS[name](model, threads)
    run(noise(32))
    before = peak_memory()
    run(noise(size))
    print(peak_memory() - before)


def compare(model: VDSR, names: list[str], options: argparse.Namespace) -> None:
    """Print the table of the first form."""
    work = 2e-9 * sum(layer.weight.numel() for layer in model.convolutions)  # GFLOP per pixel
    print("| threads | size | engine | GFLOP/s | CPU, GFLOP/s | speed | memory, MB | difference |")
    print("|---|---|---|---|---|---|---|---|")
    exact = copy.deepcopy(model).double().requires_grad_(False)
    for threads in options.threads:
        runs = {name: MAKERS[name](model, threads) for name in names}
        for size in options.sizes:
            image = noise(size)
            small = image[:300, :300].copy()  # large enough for blocks and processes
            expected = exact.residual(torch.from_numpy(small)[None, None].double())[0, 0].numpy()
            seconds = take_turns({name: partial(run, image) for name, run in runs.items()}, options.repeats)
            for name, run in runs.items():
                wall, cpu = work * size**2 / np.median(seconds[name], axis=0)
                speed = np.median(seconds["channels_last"][:, 0] / seconds[name][:, 0])
                memory = f"{memory_of(name, size, threads):.0f}" if options.memory else ""
                difference = "" if name == "ours" else f"{np.abs(run(small) - expected).max():.1e}"
                cells = (threads, size, name, f"{wall:.0f}", f"{cpu:.0f}", f"{speed:.2f} x", memory, difference)
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


def compare_whole(model: VDSR, names: list[str], options: argparse.Namespace) -> None:
    """Print the table of the second form."""
    threads, side = options.threads[-1], 2 * options.whole
    image, best = make_image(options.whole), noise(512)
    pixels = {name: side**2 for name in ("channels_last", "nchw")} | {"ncnn, 512": 512**2}
    runs: dict[str, Callable[[], Any]] = {}
    for name in ("channels_last", "nchw"):
        if name in names:
            whole = MAKERS[name](model, threads)
            runs[name] = lambda whole=whole: whole(noise(side))
    if "ncnn" in names:
        bare = MAKERS["ncnn"](model, threads)
        runs["ncnn, 512"] = lambda: bare(best)
    torch.set_num_threads(threads)
    for tile in options.tiles:
        runs[f"ours, tile {tile}"] = lambda tile=tile: super_resolve(image, 2, model=model, tile=tile, device="cpu")
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            start, cpu = time.perf_counter(), processor_time()
            run()
            megapixels = pixels.get(name, side**2) / 1e6
            spent = (time.perf_counter() - start, processor_time() - cpu)
            seconds[name].append((spent[0] / megapixels, spent[1] / megapixels))
    print(f"{options.whole} x {options.whole} at x2, {threads} threads; medians of the ratios (CPU time)\n")
    heads = [name for name in runs if not name.startswith("ours")]
    print(f"| | s per Mpx of the result | {' | '.join(f'against {name}' for name in heads)} |")
    print("|" + "---|" * (len(heads) + 2))
    for name, values in seconds.items():
        ratios = [np.median(np.divide(seconds[head], values), axis=0) for head in heads]
        cells = [f"{wall:.2f} x ({cpu:.2f} x)" for wall, cpu in ratios]
        print(f"| {name} | {np.median(values, axis=0)[0]:.2f} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print a table."""
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--full", action="store_true", help="sizes 96 to 1024, 1 and 2 threads, memory")
    parser.add_argument("--memory", action="store_true", help="measure memory, too")
    parser.add_argument("--only", nargs="+", choices=[*MAKERS], help="these engines, beside channels_last")
    parser.add_argument("--whole", type=int, help="side of the image for the second form")
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = load_model(options.model).requires_grad_(False)
    if options.memory_of:
        name, size, threads = options.memory_of
        measure_memory(model, name, int(size), int(threads))
        return
    if options.full:
        options.sizes, options.threads, options.memory = [*FULL], [1, 2], True
    names = [name for name in available() if name in {*(options.only or MAKERS), "channels_last"}]
    (compare_whole if options.whole else compare)(model, names, options)


if __name__ == "__main__":
    main()
