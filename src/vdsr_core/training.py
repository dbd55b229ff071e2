"""Train a network: the paper's recipe and a modern one, resumable at any step."""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from vdsr_core.arguments import check_whole
from vdsr_core.checkpoint import State
from vdsr_core.model import VDSR, VDSRConfig
from vdsr_core.patches import Patches

Loss = Literal["l2", "l2_mean", "l1", "charbonnier"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["step", "cosine", "one_cycle"]
Clip = Literal["value", "norm", "none"]

CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "clip": get_args(Clip),
}
PART = 2  # patches that a core of the CPU differentiates at a time
ONE_CYCLE_RISE = 0.3  # the share of the training in which the rate rises
# From which share of the training and which step on less than so many dB over bicubic is odd.
STUCK_SHARE, STUCK_STEPS, STUCK_GAIN = 0.1, 100, 0.05


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    steps : int
        Number of batches.
    seconds : float or None
        Train for so long instead, whatever the number of steps; the schedule follows the time spent.
    batch_size : int
        Patches in a batch.
    loss : {"l2", "l2_mean", "l1", "charbonnier"}
        ``l2`` is the paper's: half the squared error summed over a patch, mean over the batch. The others are means
        over pixels.
    optimizer : {"sgd", "adamw"}
        Stochastic gradient descent with `momentum`, or AdamW.
    learning_rate : float
        At the start, after `warmup` steps.
    schedule : {"step", "cosine", "one_cycle"}
        Divide the rate by 10 after each quarter of the steps, as the paper does; let it fall as a cosine to 1/1000; or
        let it rise from 1/25 over three tenths of the steps first [1]_.
    warmup : int
        Steps over which the rate rises from zero.
    momentum, weight_decay : float
        Of the optimiser; the first beta of AdamW.
    clip : {"value", "norm", "none"}
        What `theta` bounds: each element of the gradient, or its norm.
    theta : float
        The bound is ``theta / learning_rate``: a step of SGD is then at most theta. The paper gives none: with 1e-3
        and more, networks of 10 and 20 layers fell to the bicubic score within 200 steps of its recipe, with 1e-4
        they learnt.
    average : float
        Decay of the running mean of the weights that is kept as the result; 0 keeps the last weights.
    seed : int
        Of the patches.

    Raises
    ------
    ValueError
        If a field has no such value.

    References
    ----------
    .. [1] L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
           Rates", 2018. https://arxiv.org/abs/1708.07120

    Examples
    --------
    >>> TrainConfig(loss="l3")
    Traceback (most recent call last):
    ValueError: `loss` must be one of l2, l2_mean, l1, charbonnier, got 'l3'. Leave it out for the default.
    """

    steps: int = 9960
    seconds: float | None = None
    batch_size: int = 64
    loss: Loss = "l2"
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    schedule: Schedule = "step"
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: Clip = "value"
    theta: float = 1e-4
    average: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can be done with; NumPy's numbers become Python's, as JSON holds them."""
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), np.generic):
                object.__setattr__(self, field.name, value.item())
        for name, choices in CHOICES.items():
            self._check(name, getattr(self, name) in choices, f"be one of {', '.join(choices)}")
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup", 0), ("seed", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            self._check(name, whole and value >= least, f"be a whole number of at least {least}")
        for name in ("learning_rate", "theta", "seconds"):
            value = getattr(self, name)
            given = value is not None or name != "seconds"
            self._check(name, not given or (_is_number(value) and value > 0), "be a finite number greater than 0")
        for name, stop in (("weight_decay", math.inf), ("momentum", 1), ("average", 1)):
            value = getattr(self, name)
            self._check(name, _is_number(value) and 0 <= value < stop, f"be a number from 0 to below {stop}")

    def _check(self, name: str, good: bool, rule: str) -> None:
        """Raise an error that names a field unless it is good."""
        if not good:
            msg = f"`{name}` must {rule}, got {getattr(self, name)!r}. Leave it out for the default."
            raise ValueError(msg)


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite real number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# For `kim2016`, 80 epochs of the grid of 41 x 41 patches of 291 images.
PRESETS = {
    "kim2016": TrainConfig(),
    "default": TrainConfig(
        steps=100_000,
        loss="l1",
        optimizer="adamw",
        learning_rate=5e-4,
        schedule="cosine",
        warmup=500,
        clip="none",
        average=0.999,
    ),
    "finetune": TrainConfig(
        steps=1000,
        batch_size=16,
        loss="l1",
        optimizer="adamw",
        learning_rate=1e-4,
        schedule="cosine",
        warmup=20,
        clip="none",
        average=0.99,
    ),
}


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


def make_model(seed: int = 0, config: VDSRConfig | None = None) -> VDSR:
    """A new network whose first weights follow from the seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VDSR(config or VDSRConfig())


def clip_gradients(parameters: Iterable[Tensor], theta: float, learning_rate: float, *, norm: bool = False) -> float:
    """Adjustable gradient clipping (Section 3.2 of [1]_): each element to [-theta / rate, theta / rate].

    The lower the learning rate, the wider the bounds; so the largest step of a parameter is theta, and high rates do
    not explode.

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
    if norm:
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, torch.clamp(bound / total, max=1.0))
        return float(total > bound)
    beyond = (torch.cat([gradient.ravel() for gradient in gradients]).abs() > bound).float().mean()
    torch._foreach_clamp_min_(gradients, -bound)
    torch._foreach_clamp_max_(gradients, bound)
    return float(beyond)


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


def rate_at(step: int, share: float, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0, when `share` of the training is done."""
    rate = config.learning_rate * min(1, (step + 1) / max(1, config.warmup))
    if config.schedule == "step":
        return rate * 0.1 ** int(4 * share)
    if config.schedule == "one_cycle":
        if share < ONE_CYCLE_RISE:
            return rate * (0.04 + 0.96 * (1 - math.cos(math.pi * share / ONE_CYCLE_RISE)) / 2)
        share = (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return rate * (0.001 + 0.999 * (1 + math.cos(math.pi * share)) / 2)


def find_rank() -> tuple[int, int]:
    """The number of this process and how many train together: (0, 1) unless `torch.distributed` is initialised."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


@contextmanager
def joined_processes(device: str | None = None) -> Iterator[str | None]:
    """Join the processes that ``torchrun`` launched, if it did; gives the device of this one, or `device`.

    With CUDA, each process of a machine has a GPU of its own, unless `device` is ``"cpu"``.
    """
    if "RANK" not in os.environ:
        yield device
        return
    gpu = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    if gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype, in place, by their sums over all processes."""
    if find_rank()[1] > 1:
        flat = torch.cat([tensor.ravel() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


@contextmanager
def divided_work(device: torch.device) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` whose calls run on the cores of the CPU at once, one core each; the plain `map` for other devices.

    The threads of one operation wait for each other at its end, thousands of times a step, so that anything else on
    the machine holds all of them up; these wait once a step.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        yield map
        return
    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(cores)  # for threads to come: the number that was set last is theirs


class Trainer:
    """Train a network on patches.

    On a CPU a batch is differentiated in parts of two patches, whose gradients are added in their order: the result
    has the same bits whatever the number of threads, and memory does not grow with the batch.

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
    validate_every : int, optional
        Steps between validations; there is one after the last step, too.

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
        config: TrainConfig = TrainConfig(),
        *,
        validate: Callable[[VDSR], tuple[float, float]] | None = None,
        validate_every: int = 1000,
    ) -> None:
        cuda = data.device.type == "cuda"
        order = torch.channels_last if cuda else torch.contiguous_format  # the faster one; measured on the CPU
        self.model: VDSR = model.to(data.device, memory_format=order).train()  # type: ignore[call-overload]
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
                start = time.perf_counter()
                rate = rate_at(self.step, self.share, self.config)
                loss, clipped = self.advance(rate, work)
                self.spent += time.perf_counter() - start
                if self.ranks > 1 and self.config.seconds is not None:  # all must stop after the same step
                    spent = torch.tensor(self.spent, device=self.data.device)
                    dist.broadcast(spent, 0)
                    self.spent = float(spent)
                psnr = gain = None
                if self.validate and not self.rank and (self.step % self.validate_every == 0 or self.share >= 1):
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

    def anyone(self, flag: bool) -> bool:
        """Whether `flag` is true in any of the processes; each must call this after the same step."""
        if self.ranks == 1:
            return flag
        count = torch.tensor(float(flag), device=self.data.device)
        dist.all_reduce(count)
        return bool(count)

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.config.seconds is not None:
            return min(1.0, self.spent / self.config.seconds)
        return min(1.0, self.step / self.config.steps)

    def advance(self, rate: float, work: Callable[..., Iterable[Any]] = map) -> tuple[float, float]:
        """One step: loss and share of clipped gradients; `work` maps the parts of the batch to their gradients."""
        config = self.config
        choice = self.data.choose(self.step, config.batch_size, config.seed).part(self.rank, self.ranks)
        ilr, hr = self.data.gather(choice)
        size = PART if self.data.device.type == "cpu" else len(hr)
        parts = iter(work(self.differentiate, torch.split(ilr, size), torch.split(hr, size)))
        loss, gradients = next(parts)
        for more, others in parts:  # in their order: the sums have the same bits each time
            loss += more
            torch._foreach_add_(gradients, others)
        add_up([loss, *gradients])
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        clipped = 0.0
        if config.clip != "none":
            clipped = clip_gradients(self.model.parameters(), config.theta, rate, norm=config.clip == "norm")
        value = float(loss)
        if not math.isfinite(value):  # asked for here, when a GPU has done all that was queued
            msg = f"the loss must stay finite, got {value} in step {self.step + 1} at learning rate {rate:g}. "
            msg += "Go on from the last checkpoint, or start anew, with a lower `learning_rate` or `theta`."
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
        return value, clipped

    def differentiate(self, ilr: Tensor, hr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What some patches of a batch add to its loss, and to the gradient of each parameter."""
        with torch.autocast(ilr.device.type, torch.bfloat16, enabled=ilr.device.type == "cuda"):
            residual = self.model.residual(ilr)
        loss = compute_loss(ilr + residual.float(), hr, self.config.loss) * (len(hr) / self.config.batch_size)
        return loss.detach(), list(torch.autograd.grad(loss, list(self.model.parameters())))

    def find_trouble(self, progress: Progress) -> str:
        """Why the network is no better than bicubic interpolation, if it should be by now; else nothing."""
        late = self.share >= STUCK_SHARE and self.step >= max(STUCK_STEPS, self.config.warmup)
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
        if progress.clipped > 0.5:
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
                " (layers that died of a high one stay dead) or a lower `weight_decay`."
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
        if not (isinstance(config, dict) and type(step) is int and step >= 0 and _is_number(spent) and spent >= 0):
            msg = f"`state` must hold config, step and time spent, got {config}, {step} and {spent}. Start anew."
            raise ValueError(msg)
        other = {name: config.get(name) for name, value in asdict(self.config).items() if config.get(name) != value}
        if other:
            msg = f"`config` must be that of the training to resume, got another {other}. Start anew to change it."
            raise ValueError(msg)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            groups[kind][rest] = tensor
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            number, _, rest = name.partition(".")
            entries.setdefault(int(number), {})[rest] = tensor
        try:
            self.model.load_state_dict(groups["weights"])
            self.average.load_state_dict(groups["average"])
        except RuntimeError as error:
            msg = f"`model` must be the network of the training to resume, {self.model.config}, got another."
            raise ValueError(msg) from error
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": entries})
        self.step, self.spent = step, float(spent)
