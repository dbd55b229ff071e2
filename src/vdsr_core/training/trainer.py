"""Train a network, resumable at any step."""

from __future__ import annotations

import copy
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vdsr_core.arguments import check_integer
from vdsr_core.dataset.patches import Patches
from vdsr_core.network.checkpoint import State
from vdsr_core.network.model import VDSR
from vdsr_core.network.threads import divided_work
from vdsr_core.stopping import stop_if
from vdsr_core.training.cuda_graph import Recording
from vdsr_core.training.muon import Muon
from vdsr_core.training.objective import clip_gradients, compute_loss
from vdsr_core.training.processes import find_rank, sum_over_processes
from vdsr_core.training.progress import Progress, explain_stuck, is_stuck
from vdsr_core.training.recipe import TrainConfig, rate_at

AMPERE = (8, 0)  # the first CUDA devices that compute in bfloat16
BFLOAT16 = ("avx512_bf16", "amx_bf16")  # what CPUs that do call it
VALIDATIONS = 20  # where their number is not given
WIDE = 32  # filters, from which on bfloat16 is faster on a CPU
PART = 4  # patches that one core of a CPU differentiates at a time
Differentiate = Callable[..., tuple[Tensor, list[Tensor]]]


class Network(Protocol):
    """A module that predicts what is missing from interpolated images, (B, 1, H, W) both: what can be trained."""

    def residual(self, ilr: Tensor) -> Tensor:
        """What is missing."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its parameters, always in the same order."""

    def state_dict(self) -> dict[str, Any]:
        """Its parameters by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take over parameters by name."""


N = TypeVar("N", bound=Network)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself, faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # which is newer than PyTorch 2.4
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in BFLOAT16)


def match_strides(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` with its elements in memory in the order of `like`, which fused optimisers ask for."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def make_optimizer(model: Network, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of a training."""
    parameters = list(model.parameters())
    if config.optimizer == "muon":
        return Muon(parameters, config.learning_rate, half=computes_bfloat16(device))
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    options["fused"] = True if device.type == "cuda" else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **options)
    return torch.optim.AdamW(parameters, betas=(config.momentum, 0.99), **options)


class Trainer(Generic[N]):
    """Train a network on patches.

    On a CPU the gradient of a batch is computed in parts of four patches and added up in their order: the result
    has the same bits for any number of threads, and memory does not grow with the batch.

    If the device multiplies in bfloat16, as GPUs and some CPUs do (AVX-512 BF16, AMX), all layers but the first and
    the last are computed in it, with sums, weights, loss and optimiser in float32: on a CPU in two thirds of the time.
    On a GPU, the work of a step is recorded once as a CUDA graph.

    If `torch.distributed` is initialised, as by ``torchrun``, the processes share each batch and train one network:
    patches, gradients and weights are those of a single process, up to rounding. The first process validates.

    Parameters
    ----------
    model : VDSR
        The network to start from; it is trained in place. Any other module with a method ``residual(ilr)`` can be
        trained, too, in float32.
    data : Patches
        Source of the batches; the network is trained on its device.
    config : TrainConfig, optional
        How to train.
    validate : callable, optional
        Called with the network as it would be saved; returns its PSNR and its gain over bicubic in dB. If the gain is
        below 0.05 after a tenth of the training, 100 steps and the warm-up, the `Progress` of that step warns
        once, and names the probable cause.
    validate_every : int or None, optional
        Steps between validations; another one follows the last step. None spreads 20 evenly over the training,
        which suits a time budget.
    stop : Event, optional
        If another thread sets it, `run` raises `Stopped` in the middle of a step, as if that step had never begun.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

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
        model: N,
        data: Patches,
        config: TrainConfig = TrainConfig(),  # noqa: B008 (frozen)
        *,
        validate: Callable[[N], tuple[float, float]] | None = None,
        validate_every: int | None = 1000,
        stop: threading.Event | None = None,
    ) -> None:
        if validate_every is not None:
            check_integer("validate_every", validate_every, 1)
        module: Any = model
        self.half = False
        self._residual: Callable[..., Tensor] = lambda ilr, _: module.residual(ilr)  # of another network
        if isinstance(model, VDSR):
            wide = data.device.type == "cuda" or model.config.width >= WIDE
            self.half = wide and computes_bfloat16(data.device)
            self._residual = partial(model.residual, half=torch.bfloat16 if self.half else None)
        self.model: N = module.to(data.device, memory_format=torch.channels_last).train()
        self.data, self.config, self._stop = data, config, stop
        self._validate, self._validate_every = validate, validate_every
        self.step, self.spent = 0, 0.0
        self._warned, self._last_gain = False, math.inf
        self._differentiate: Differentiate | None = None
        self.rank, self._ranks = find_rank()
        if self._ranks > config.batch_size:
            msg = f"`batch_size` must be at least the number of processes, {self._ranks}, got {config.batch_size}."
            raise ValueError(msg)
        for parameter in self.model.parameters() if self._ranks > 1 else ():
            dist.broadcast(parameter.data, 0)
        self._average: N = copy.deepcopy(module).requires_grad_(False) if config.average else self.model
        self._optimizer = make_optimizer(self.model, config, data.device)

    @property
    def result(self) -> N:
        """The network to keep: the running mean of the weights if there is one. Copy it to keep it as it is."""
        return self._average

    @property
    def share(self) -> float:
        """The fraction of the training that is done, from 0 to 1."""
        if self.config.seconds is not None:
            return min(1.0, self.spent / self.config.seconds)
        return min(1.0, self.step / self.config.steps)

    def run(self) -> Iterator[Progress]:
        """Continue from the current step and yield a `Progress` after each step; closing the iterator stops.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; that step leaves the network as it was.
        Stopped
            If `stop` is set; that step leaves the network as it was.
        """
        with divided_work(self.data.device) as work:
            while self.share < 1:
                start, before = time.perf_counter(), self.share
                rate = rate_at(self.step, before, self.config)
                loss, clipped = self._advance(rate, work)
                self._spend(time.perf_counter() - start)
                psnr = gain = None
                if self._validate and not self.rank and self._is_due(before):
                    psnr, gain = self._validate(self.result)
                left = self.spent * (1 / self.share - 1)
                speed = self.step * self.config.batch_size / self.spent
                progress = Progress(self.step, self.share, rate, loss, clipped, speed, left, psnr, gain)
                yield self._watch(progress)

    def _advance(self, rate: float, work: Callable[..., Iterable[Any]] = map) -> tuple[float, float]:
        """One step: its loss and the fraction of clipped gradients; `work` maps a function to parts, as on threads."""
        config, parameters = self.config, [*self.model.parameters()]
        stop_if(self._stop)  # a recorded step looks at nothing
        # Draw patches, (B, 1, P, P) each, and their conditions, (B, 4): those of this process.
        batch = self._draw()
        # Differentiate them in parts; the gradients are added in their order, so the sums have the same bits each time.
        loss, gradients = self._sum_parts(batch, work)
        sum_over_processes([loss, *gradients])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        # Refuse a loss that is not finite before it reaches the weights.
        if not math.isfinite(value := float(loss)):
            msg = f"the loss must stay finite, got {value} in step {self.step + 1} at learning rate {rate:g}. "
            msg += "Start again from the network of the last checkpoint, with a lower `learning_rate` or `theta`."
            raise FloatingPointError(msg)
        # Clip each element of the gradient to [-theta / rate, theta / rate].
        clipped = 0.0 if config.clip == "none" else clip_gradients(parameters, config.theta / rate, 1)
        # Change the weights.
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if isinstance(self._optimizer, Muon):
            self._optimizer.step(work=work)
        else:
            self._optimizer.step()
        # Move their running mean. It forgets its start: its decay rises from 1/10 to the configured one.
        if config.average:
            decay = min(config.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self._average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return value, clipped

    def _draw(self) -> tuple[Tensor, ...]:
        """The interpolated and the sharp patches of the next step, and their conditions: those of this process."""
        choice = self.data.choose(self.step, self.config.batch_size, self.config.seed).part(self.rank, self._ranks)
        return *self.data.gather(choice), self.data.conditions(choice)

    def _sum_parts(self, batch: tuple[Tensor, ...], work: Callable[..., Iterable[Any]]) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch and the gradient of each parameter; on a GPU in one part, recorded if possible."""
        size = PART if self.data.device.type == "cpu" else len(batch[0])
        if self._differentiate is None:
            self._differentiate = self._record(batch) if self.data.device.type == "cuda" else self._loss_and_gradients
        parts = iter(work(self._differentiate, *(torch.split(tensor, size) for tensor in batch)))
        loss, gradients = next(parts)
        for more, others in parts:
            loss += more
            torch._foreach_add_(gradients, others)
        return loss, gradients

    def _loss_and_gradients(
        self, ilr: Tensor, hr: Tensor, conditions: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """What some patches of a batch add to its loss, and to the gradient of each parameter."""
        stop_if(self._stop)
        loss = self.loss(ilr, hr, conditions) * (len(hr) / self.config.batch_size)
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        return loss.detach(), [match_strides(*pair) for pair in zip(gradients, parameters, strict=True)]

    def loss(self, ilr: Tensor, hr: Tensor, conditions: Tensor | None = None) -> Tensor:
        """The loss of some patches, their mean; a network that is trained for another one overrides this."""
        return compute_loss(ilr + self._residual(ilr, conditions), hr, self.config.loss)

    def _record(self, batch: tuple[Tensor, ...]) -> Differentiate:
        """`_loss_and_gradients` as a CUDA graph for batches like this one; as it is where it cannot be recorded."""
        try:
            return Recording(self._loss_and_gradients, *batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"training continues more slowly: its steps cannot be recorded here. {reason}", stacklevel=2)
            return self._loss_and_gradients

    def _spend(self, seconds: float) -> None:
        """Count the time of a step; with a time budget, all processes must stop after the same one."""
        self.spent += seconds
        if self._ranks > 1 and self.config.seconds is not None:
            spent = torch.tensor(self.spent, dtype=torch.float64, device=self.data.device)
            dist.broadcast(spent, 0)
            self.spent = float(spent)

    def _is_due(self, before: float) -> bool:
        """Whether to validate after this step, before which `before` was the fraction done."""
        if self.share >= 1 or self._validate_every is None:
            return int(VALIDATIONS * self.share) > int(VALIDATIONS * before)
        return self.step % self._validate_every == 0

    def _watch(self, progress: Progress) -> Progress:
        """The progress, with a warning if the network is stuck at the bicubic score, once."""
        if not self._warned and is_stuck(progress, self.config):
            self._warned = True
            choice = self.data.choose(self.step, self.config.batch_size, self.config.seed)
            ilr, hr = self.data.gather(choice)
            with torch.no_grad():
                residual = self._residual(ilr, self.data.conditions(choice))
            warning = explain_stuck(progress, self._last_gain, self.config, residual, hr - ilr)
            progress = replace(progress, warning=warning)
        if progress.gain is not None:
            self._last_gain = progress.gain
        return progress

    def state(self) -> State:
        """All that a later run needs to resume as if it had not stopped: tensors, and JSON."""
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        for number, entry in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in entry.items()}
        # Copies: training continues while they are written.
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        record = {"config": asdict(self.config), "step": self.step, "spent": self.spent, "stuck": self._warned}
        return tensors, record | ({"gain": self._last_gain} if math.isfinite(self._last_gain) else {})

    def restore(self, state: State) -> None:
        """Resume from what `state` returned: the patches of the next steps follow from the seed.

        Raises
        ------
        ValueError
            If the state is that of another network or of other settings, or is damaged.
        """
        tensors, record = state
        known: tuple[Any, ...] = tuple(record.get(name) for name in ("config", "step", "spent"))
        config, step, spent = known
        finite = type(spent) in (int, float) and 0 <= spent < math.inf
        if not (isinstance(config, dict) and type(step) is int and step >= 0 and finite):
            msg = f"`state` must hold config, step and time spent, got {config}, {step} and {spent}. Start again."
            raise ValueError(msg)
        config = {"decay": 1.0} | config  # which files of earlier versions do not have
        other = {name: config.get(name) for name, value in asdict(self.config).items() if config.get(name) != value}
        if other:
            msg = f"`config` must be that of the training to resume, got another {other}. Start again to change it."
            raise ValueError(msg)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups.setdefault(kind, {})[rest] = tensor
        try:
            self.model.load_state_dict(groups["weights"])
            self._average.load_state_dict(groups["average"])
        except RuntimeError as error:
            kind = getattr(self.model, "config", type(self.model).__name__)
            msg = f"`model` must be the network of the training to resume, {kind}, got another."
            raise ValueError(msg) from error
        entries = self._sort_entries(groups["optimizer"])
        remembers = step > 0 and (self.config.optimizer != "sgd" or self.config.momentum > 0)
        if len(groups) > 3 or len(entries) != remembers * len(list(self.model.parameters())):
            msg = "`state` must hold weights, average and optimizer, got a damaged one. Start again."
            raise ValueError(msg)
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": entries})
        self.step, self.spent = step, float(spent)
        self._warned, self._last_gain = bool(record.get("stuck")), float(record.get("gain", math.inf))

    def _sort_entries(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """What the optimiser remembers of each parameter, by number; what fits no parameter is left out."""
        entries: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self.model.parameters()):
            entry = {name.removeprefix(f"{number}."): t for name, t in tensors.items() if name.startswith(f"{number}.")}
            if entry and all(tensor.shape in ((), parameter.shape) for tensor in entry.values()):
                entries[number] = {name: match_strides(t, parameter) if t.ndim else t for name, t in entry.items()}
        return entries
