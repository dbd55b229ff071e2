"""Train a network, resumable at any step."""

from __future__ import annotations

import copy
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vdsr_core.arguments import check_whole
from vdsr_core.dataset.patches import Patches
from vdsr_core.network.checkpoint import State
from vdsr_core.network.model import VDSR
from vdsr_core.network.threads import divided_work
from vdsr_core.stopping import stop_if
from vdsr_core.training.cuda_graph import Recording
from vdsr_core.training.processes import add_up, find_rank
from vdsr_core.training.recipe import TrainConfig, is_number, rate_at
from vdsr_core.training.winograd import Workspace

AMPERE = (8, 0)  # the first CUDA devices that compute in bfloat16
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # what CPUs that do call it
VALIDATIONS = 20  # where their number is not given
WIDE = 48  # from here on the filters, not the pixels, are what takes time on a CPU
# Other patches for which Winograd's convolutions pay, and take a few 100 MB at most.
WINOGRAD_DEPTH, WINOGRAD_SIDES = 3, range(24, 97)
PART, HALF_PART = 2, 4  # patches that a core of the CPU differentiates at a time, in float32 and in bfloat16
# From which share of the training and which step on less than so many dB over bicubic is odd.
STUCK_SHARE, STUCK_STEPS, STUCK_GAIN = 0.1, 100, 0.05
TIGHT = 0.5  # the share of clipped elements that is odd so late; dead filters have none, so it is never all


@dataclass(frozen=True)
class Progress:
    """What a step of training did.

    Attributes
    ----------
    step : int
        Steps done.
    share : float
        How much of the training is done, from 0 to 1.
    learning_rate, loss : float
        Of this step.
    clipped : float
        The share of gradient elements beyond the bound; 0 or 1 when the norm is clipped.
    patches_per_second : float
        On the average.
    seconds_left : float
        At that speed, validation not counted.
    psnr, gain : float or None
        What `validate` returned after this step, in dB: of the network, and over bicubic; None where it was not called.
    """

    step: int
    share: float
    learning_rate: float
    loss: float
    clipped: float
    patches_per_second: float
    seconds_left: float
    psnr: float | None
    gain: float | None


def clip_gradients(parameters: Iterable[Tensor], theta: float, learning_rate: float, *, norm: bool = False) -> float:
    """Adjustable gradient clipping (Section 3.2 of [1]_): each element to [-theta / rate, theta / rate].

    The lower the learning rate, the wider the bounds; so the largest step of a parameter is theta (with momentum m, the
    sum of many such steps, up to theta / (1 - m)), and high rates do not explode.

    Parameters
    ----------
    parameters : iterable of Tensor
        Their gradients are clipped in place.
    theta : float
        Greater than 0.
    learning_rate : float
        The current one, gamma in the paper; greater than 0.
    norm : bool, optional
        Bound the norm of all gradients together instead.

    Returns
    -------
    float
        The share of elements that were clipped; 1 or 0 for the norm.

    References
    ----------
    .. [1] J. Kim, J. K. Lee, K. M. Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
           CVPR 2016. https://arxiv.org/abs/1511.04587

    Examples
    --------
    >>> import torch
    >>> weight = torch.zeros(4)
    >>> weight.grad = torch.tensor([-3.0, -0.1, 0.1, 3.0])
    >>> clip_gradients([weight], theta=0.01, learning_rate=0.1), weight.grad
    (0.5, tensor([-0.1000, -0.1000,  0.1000,  0.1000]))
    """
    bound = theta / learning_rate
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(_clip_norm(gradients, bound) if norm else _clip_elements(gradients, bound))


def _clip_norm(gradients: list[Tensor], bound: float) -> Tensor:
    """Scale gradients so that their norm is `bound` at most; 1 if it was more, else 0."""
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.clamp(bound / total, max=1.0))
    exceeded: Tensor = total > bound
    return exceeded.float()


def _clip_elements(gradients: list[Tensor], bound: float) -> Tensor:
    """Clip each element of gradients to [-bound, bound]; the share of those that were beyond."""
    beyond = (torch.cat([gradient.ravel() for gradient in gradients]).abs() > bound).float().mean()
    torch._foreach_clamp_min_(gradients, -bound)
    torch._foreach_clamp_max_(gradients, bound)
    return beyond


def compute_loss(sr: Tensor, hr: Tensor, kind: str) -> Tensor:
    """The loss of a batch, (B, 1, P, P) each; equal to that of the residuals, since both contain the ILR."""
    error = hr - sr
    if kind == "l2":
        return error.square().sum() / (2 * len(error))  # 1/2 ||r - f(x)||^2, Section 3.2
    if kind == "l2_mean":
        return error.square().mean()
    if kind == "l1":
        return error.abs().mean()
    return (error.square() + 1e-6).sqrt().mean()


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself, faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # which is newer than PyTorch 2.4
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in BFLOAT16)


def lay_out(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with its elements in memory in the order of `like`, which fused optimisers ask for."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def _warn_of(error: RuntimeError, what: str) -> None:
    """Warn that training goes on without something that failed."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"training goes on more slowly: its steps cannot be {what} here. {reason}", stacklevel=2)


class Trainer:
    """Train a network on patches.

    On a CPU a batch is differentiated in parts of two or four patches, whose gradients are added in their order: the
    result has the same bits whatever the number of threads, and memory does not grow with the batch. Convolutions of
    48 filters and more are Winograd's there for patches of 24 to 96 pixels: a step takes about 1.3 times less of the
    processor's time than the usual loop.

    Where the device multiplies in bfloat16, as GPUs do and some CPUs (AVX-512 BF16, AMX), all layers but the first and
    the last are computed so, with sums, weights, loss and optimiser in float32: on a CPU another 1.5 times as fast. On
    a GPU, the work of a step is recorded once as a CUDA graph, and the next batch is gathered while the GPU is busy.

    Where `torch.distributed` is initialised, as by ``torchrun``, the processes share each batch and train as one:
    with the patches, the gradients and so the weights that a single process would have, to rounding. The first
    process validates.

    Parameters
    ----------
    model : VDSR
        Where to start; it is trained in place.
    data : Patches
        Where the batches come from, and the device.
    config : TrainConfig, optional
        How to train.
    validate : callable, optional
        Called with the network as it would be saved; returns its PSNR and its gain over bicubic in dB. If the gain is
        below 0.05 when a tenth of the training, 100 steps and the warm-up are done, a warning names the probable
        cause, once.
    validate_every : int or None, optional
        Steps between validations; there is one after the last step, too. None spreads 20 evenly over the training,
        which suits a time budget.
    compile : bool, optional
        Compile the network by `torch.compile` first, which takes up to a minute and needs a C++ compiler: for long
        training on a GPU. Where it fails, a warning says so, and training goes on without.

    Examples
    --------
    >>> import numpy as np
    >>> from vdsr_core import VDSRConfig
    >>> data = Patches([np.random.default_rng(0).random((32, 32))], [2])
    >>> trainer = Trainer(VDSR(VDSRConfig(depth=3, width=4)), data, TrainConfig(steps=2, batch_size=4))
    >>> [progress.step for progress in trainer.run()]
    [1, 2]
    """

    def __init__(
        self,
        model: VDSR,
        data: Patches,
        config: TrainConfig = TrainConfig(),  # noqa: B008 (frozen)
        *,
        validate: Callable[[VDSR], tuple[float, float]] | None = None,
        validate_every: int | None = 1000,
        compile: bool = False,
    ) -> None:
        cuda = data.device.type == "cuda"
        self.half = computes_bfloat16(data.device) and (cuda or model.config.width >= WIDE)
        order = torch.channels_last if cuda or self.half else torch.contiguous_format  # the faster one, as measured
        self.model: VDSR = model.to(data.device, memory_format=order).train()  # type: ignore[call-overload]
        if validate_every is not None:
            check_whole("validate_every", validate_every, 1)
        self.data, self.config = data, config
        self.rank, self.ranks = find_rank()
        if self.ranks > config.batch_size:
            msg = f"`batch_size` must be at least the number of processes, {self.ranks}, got {config.batch_size}."
            raise ValueError(msg)
        for parameter in self.model.parameters() if self.ranks > 1 else ():
            dist.broadcast(parameter.data, 0)
        self.validate, self.validate_every = validate, validate_every
        self.step, self.spent = 0, 0.0
        self.stop: threading.Event | None = None  # if it is set, a step ends early with `Stopped`, as if never begun
        self.residual = torch.compile(self.model.residual) if compile else self.model.residual
        self.spaces = threading.local()  # of each thread that differentiates: its `Workspace`s, by the shape of patches
        self.fastest: Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]] | None = None
        self.ahead: tuple[int, tuple[Tensor, Tensor]] | None = None
        self.warned, self.last_gain = False, math.inf
        self.average: VDSR = copy.deepcopy(self.model).requires_grad_(False) if config.average else self.model
        parameters = list(self.model.parameters())
        options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        options["fused"] = True if cuda else None
        if config.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, momentum=config.momentum, **options)
        else:
            self.optimizer = torch.optim.AdamW(parameters, betas=(config.momentum, 0.99), **options)

    @property
    def result(self) -> VDSR:
        """The network to keep: the running mean of the weights if there is one. Copy it to keep it as it is."""
        return self.average

    def run(self) -> Iterator[Progress]:
        """Train on from the current step, yielding after each; closing the iterator stops.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; that step leaves the network as it was.
        """
        with divided_work(self.data.device) as work:
            while self.share < 1:
                start, before = time.perf_counter(), self.share
                rate = rate_at(self.step, before, self.config)
                loss, clipped = self.advance(rate, work)
                self.spent += time.perf_counter() - start
                if self.ranks > 1 and self.config.seconds is not None:  # all must stop after the same step
                    spent = torch.tensor(self.spent, dtype=torch.float64, device=self.data.device)
                    dist.broadcast(spent, 0)
                    self.spent = float(spent)
                psnr = gain = None
                if self.validate and not self.rank and self.is_due(before):
                    psnr, gain = self.validate(self.result)
                left = self.spent * (1 / self.share - 1)
                speed = self.step * self.config.batch_size / self.spent
                progress = Progress(self.step, self.share, rate, loss, clipped, speed, left, psnr, gain)
                if not self.warned and (words := self.find_trouble(progress)):
                    self.warned = True
                    warnings.warn(words, stacklevel=2)
                yield progress
                if gain is not None:
                    self.last_gain = gain

    def is_due(self, before: float) -> bool:
        """Whether to validate after this step, before which `before` was the share of the training."""
        if self.share >= 1 or self.validate_every is None:
            return int(VALIDATIONS * self.share) > int(VALIDATIONS * before)
        return self.step % self.validate_every == 0

    def anyone(self, flag: bool) -> bool:
        """Whether `flag` is true in any of the processes; each must call this after the same step."""
        if self.ranks == 1:
            return flag
        count = torch.tensor(float(flag), device=self.data.device)
        dist.all_reduce(count)
        return bool(count)

    @property
    def part(self) -> int:
        """Patches that one core of a CPU differentiates at a time: the larger number where two cores can share them."""
        return HALF_PART if self.half and self.config.batch_size % (2 * HALF_PART) == 0 else PART

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.config.seconds is not None:
            return min(1.0, self.spent / self.config.seconds)
        return min(1.0, self.step / self.config.steps)

    def advance(self, rate: float, work: Callable[..., Iterable[Any]] = map) -> tuple[float, float]:
        """One step: loss and share of clipped gradients; `work` maps the parts of the batch to their gradients."""
        config = self.config
        stop_if(self.stop)  # a recorded step looks at nothing
        ilr, hr = self.ahead[1] if self.ahead and self.ahead[0] == self.step else self.draw(self.step)
        size = self.part if self.data.device.type == "cpu" else len(hr)
        if self.fastest is None:
            self.fastest = self.prepare(ilr[:size], hr[:size])
        parts = iter(work(self.fastest, torch.split(ilr, size), torch.split(hr, size)))
        loss, gradients = next(parts)
        for more, others in parts:  # in their order: the sums have the same bits each time
            loss += more
            torch._foreach_add_(gradients, others)
        add_up([loss, *gradients])
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        clipped: float | Tensor = 0.0
        if config.clip != "none":
            clip = _clip_norm if config.clip == "norm" else _clip_elements
            clipped = clip([parameter.grad for parameter in self.model.parameters()], config.theta / rate)  # type: ignore[misc]
        if self.data.device.type == "cuda":  # which has much to do yet
            self.ahead = self.step + 1, self.draw(self.step + 1)
        value, share = float(loss), float(clipped)
        if not math.isfinite(value):  # asked for here, when a GPU has done all that was queued
            msg = f"the loss must stay finite, got {value} in step {self.step + 1} at learning rate {rate:g}. "
            msg += "Start anew from the last checkpoint's network, with a lower `learning_rate` or `theta`."
            raise FloatingPointError(msg)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if config.average:
            # The mean forgets its start: its decay rises from 1/10 to the configured one.
            decay = min(config.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return value, share

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """The interpolated and the sharp patches of a step, those of this process."""
        choice = self.data.choose(step, self.config.batch_size, self.config.seed)
        return self.data.gather(choice.part(self.rank, self.ranks))

    def prepare(self, ilr: Tensor, hr: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]:
        """The fastest way to differentiate batches like this one that works here."""
        if self.residual != self.model.residual:
            try:
                self.differentiate(ilr, hr)
            except RuntimeError as error:
                _warn_of(error, "compiled")
                self.residual = self.model.residual
        if self.data.device.type == "cuda":
            try:
                return Recording(self.differentiate, ilr, hr)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _warn_of(error, "recorded")
        return self.differentiate

    def differentiate(self, ilr: Tensor, hr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What some patches of a batch add to its loss, and to the gradient of each parameter."""
        stop_if(self.stop)
        residual = self.find_residual(ilr)(ilr)
        loss = compute_loss(ilr + residual, hr, self.config.loss) * (len(hr) / self.config.batch_size)
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        return loss.detach(), [lay_out(*pair) for pair in zip(gradients, parameters, strict=True)]

    def find_residual(self, ilr: Tensor) -> Callable[[Tensor], Tensor]:
        """What gives the residual of such patches fastest here."""
        config, side = self.model.config, ilr.shape[-1]
        direct = self.half or ilr.device.type != "cpu" or self.residual != self.model.residual
        direct = direct or config.fold > 1 or config.blocks
        if direct or config.depth < WINOGRAD_DEPTH or config.width < WIDE or side not in WINOGRAD_SIDES:
            return partial(self.residual, half=torch.bfloat16 if self.half else None)
        spaces: dict[Any, Workspace] = self.spaces.__dict__
        if ilr.shape not in spaces:
            spaces[ilr.shape] = Workspace(self.model, (len(ilr), side, side), ilr.dtype)
        return spaces[ilr.shape].residual

    def find_trouble(self, progress: Progress) -> str:
        """Why the network is no better than bicubic interpolation, if it should be by now; else nothing."""
        warmup = self.config.warmup if self.config.seconds is None else 0  # over by that share
        late = self.share >= STUCK_SHARE and self.step >= max(STUCK_STEPS, warmup)
        if progress.gain is None or progress.gain >= STUCK_GAIN or not late:
            return ""
        return f"stuck at or below bicubic: {progress.gain:+.2f} dB after step {self.step}. " + self.find_cause(
            progress
        )

    @torch.no_grad()
    def find_cause(self, progress: Progress) -> str:
        """The probable cause of a network stuck at the bicubic score, from what is seen of it."""
        ilr, hr = self.data.gather(self.data.choose(self.step, self.config.batch_size, self.config.seed))
        missing = float((hr - ilr).square().mean().sqrt())
        ratio = float(self.model.residual(ilr).square().mean().sqrt()) / max(missing, 1e-12)
        if missing < 1e-4:
            return "The images are all but flat: bicubic leaves nothing to learn. Use sharper images or larger scales."
        if progress.clipped > TIGHT and self.config.clip == "value":
            return (
                f"{progress.clipped:.0%} of the gradient is clipped: `theta` is too tight for this loss. Raise `theta`."
            )
        if progress.gain is not None and progress.gain > self.last_gain + STUCK_GAIN:
            return f"It still gains: train longer, or with a higher rate than {progress.learning_rate:g}."
        if ratio > 1.5:
            return (
                f"The residual is {ratio:.1f} times as large as what is missing: the rate, {progress.learning_rate:g}, "
                "is too high. Lower `learning_rate`."
            )
        if ratio < 0.1:
            return (
                f"The residual has collapsed to {ratio:.1%} of what is missing. Start anew with a lower `learning_rate`"
                f"{'' if self.config.clip == 'none' else ', a lower `theta`'} (layers that died of large steps stay"
                " dead) or a lower `weight_decay`."
            )
        return f"The rate, {progress.learning_rate:g}, may be too low, or the images too few. Raise `learning_rate`."

    def state(self) -> State:
        """All that a later run needs to go on as if it had not stopped: tensors, and JSON."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in entry.items()}
        # Copies: training goes on while they are written.
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return tensors, {"config": asdict(self.config), "step": self.step, "spent": self.spent}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned: the patches of the next steps follow from the seed.

        Raises
        ------
        ValueError
            If the state is that of another network or of other settings, or is damaged.
        """
        tensors, record = state
        known: tuple[Any, ...] = tuple(record.get(name) for name in ("config", "step", "spent"))
        config, step, spent = known
        if not (isinstance(config, dict) and type(step) is int and step >= 0 and is_number(spent) and spent >= 0):
            msg = f"`state` must hold config, step and time spent, got {config}, {step} and {spent}. Start anew."
            raise ValueError(msg)
        other = {name: config.get(name) for name, value in asdict(self.config).items() if config.get(name) != value}
        if other:
            msg = f"`config` must be that of the training to resume, got another {other}. Start anew to change it."
            raise ValueError(msg)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups.setdefault(kind, {})[rest] = tensor
        try:
            self.model.load_state_dict(groups["weights"])
            self.average.load_state_dict(groups["average"])
        except RuntimeError as error:
            msg = f"`model` must be the network of the training to resume, {self.model.config}, got another."
            raise ValueError(msg) from error
        entries = self.sort_entries(groups["optimizer"])
        remembers = step > 0 and (self.config.optimizer != "sgd" or self.config.momentum > 0)
        if len(groups) > 3 or len(entries) != remembers * len(list(self.model.parameters())):
            msg = "`state` must hold weights, average and optimizer, got a damaged one. Start anew."
            raise ValueError(msg)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": entries})
        self.step, self.spent = step, float(spent)

    def sort_entries(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """What the optimiser remembers of each parameter, by number; what fits no parameter is left out."""
        entries: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self.model.parameters()):
            entry = {name.removeprefix(f"{number}."): t for name, t in tensors.items() if name.startswith(f"{number}.")}
            if entry and all(tensor.shape in ((), parameter.shape) for tensor in entry.values()):
                entries[number] = {name: lay_out(t, parameter) if t.ndim else t for name, t in entry.items()}
        return entries
