"""Train a network: the paper's recipe and a modern one, resumable at any step."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from vdsr_core.checkpoint import State
from vdsr_core.model import VDSR
from vdsr_core.patches import Patches


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
    schedule : {"step", "cosine"}
        Divide the rate by 10 after each quarter of the steps, as the paper does, or let it fall as a cosine.
    warmup : int
        Steps over which the rate rises from zero.
    momentum, weight_decay : float
        Of the optimiser; the first beta of AdamW.
    clip : {"value", "norm", "none"}
        What `theta` bounds: each element of the gradient, or its norm.
    theta : float
        The bound is ``theta / learning_rate`` for SGD, whose step is then at most theta; `theta` itself for AdamW.
    average : float
        Decay of the running mean of the weights that is kept as the result; 0 keeps the last weights.
    seed : int
        Of the patches.
    """

    steps: int = 9960
    seconds: float | None = None
    batch_size: int = 64
    loss: Literal["l2", "l2_mean", "l1", "charbonnier"] = "l2"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    schedule: Literal["step", "cosine"] = "step"
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: Literal["value", "norm", "none"] = "value"
    theta: float = 0.01
    average: float = 0.0
    seed: int = 0


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
    gain : float or None
        What `validate` returned after this step: by custom dB over bicubic; None where it was not called.
    """

    step: int
    share: float
    learning_rate: float
    loss: float
    clipped: float
    patches_per_second: float
    seconds_left: float
    gain: float | None


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
        total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        for gradient in gradients:
            gradient.mul_(torch.clamp(bound / total, max=1.0))
        return float(total > bound)
    beyond = torch.stack([(gradient.abs() > bound).sum() for gradient in gradients]).sum()
    for gradient in gradients:
        gradient.clamp_(-bound, bound)
    return float(beyond) / sum(gradient.numel() for gradient in gradients)


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
    return rate * (0.001 + 0.999 * (1 + math.cos(math.pi * share)) / 2)


class Trainer:
    """Train a network on patches.

    Parameters
    ----------
    model : VDSR
        Where to start; it is trained in place.
    data : Patches
        Where the batches come from, and the device.
    config : TrainConfig, optional
        How to train.
    validate : callable, optional
        Called with the network as it would be saved; returns a figure of merit, by custom the gain over bicubic in dB.
    validate_every : int, optional
        Steps between validations.
    """

    def __init__(
        self,
        model: VDSR,
        data: Patches,
        config: TrainConfig = TrainConfig(),
        *,
        validate: Callable[[VDSR], float] | None = None,
        validate_every: int = 1000,
    ) -> None:
        self.model = model.to(data.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.data, self.config = data, config
        self.validate, self.validate_every = validate, validate_every
        self.step, self.spent = 0, 0.0
        self.average = copy.deepcopy(self.model).requires_grad_(False) if config.average else self.model
        parameters = list(self.model.parameters())
        if config.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                parameters, config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            self.optimizer = torch.optim.AdamW(
                parameters, config.learning_rate, betas=(config.momentum, 0.99), weight_decay=config.weight_decay
            )

    @property
    def result(self) -> VDSR:
        """The network to keep: the running mean of the weights if there is one. Copy it to keep it as it is."""
        return self.average

    def run(self) -> Iterator[Progress]:
        """Train on from the current step, yielding after each; closing the iterator stops."""
        while self.share < 1:
            start = time.perf_counter()
            rate = rate_at(self.step, self.share, self.config)
            loss, clipped = self.advance(rate)
            self.spent += time.perf_counter() - start
            gain = None
            if self.validate and (self.step % self.validate_every == 0 or self.share >= 1):
                gain = self.validate(self.result)
            left = self.spent * (1 / self.share - 1)
            speed = self.step * self.config.batch_size / self.spent
            yield Progress(self.step, self.share, rate, loss, clipped, speed, left, gain)

    @property
    def share(self) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.config.seconds is not None:
            return min(1.0, self.spent / self.config.seconds)
        return min(1.0, self.step / self.config.steps)

    def advance(self, rate: float) -> tuple[float, float]:
        """One step: loss and share of clipped gradients."""
        config = self.config
        ilr, hr = self.data.gather(self.data.choose(self.step, config.batch_size, config.seed))
        half = self.data.device.type == "cuda"
        with torch.autocast(self.data.device.type, torch.bfloat16, enabled=half):
            residual = self.model.residual(ilr)
        loss = compute_loss(ilr + residual.float(), hr, config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clipped = 0.0
        if config.clip != "none":
            clipped = clip_gradients(self.model.parameters(), config.theta, rate, norm=config.clip == "norm")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if config.average:
            # The mean forgets its start: its decay rises from 1/10 to the configured one.
            decay = min(config.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return float(loss.detach()), clipped

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
            If the state is that of another network or of other settings.
        """
        tensors, record = state
        other = {
            name: record["config"].get(name)
            for name, value in asdict(self.config).items()
            if record["config"].get(name) != value
        }
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
        self.step, self.spent = record["step"], record["spent"]
