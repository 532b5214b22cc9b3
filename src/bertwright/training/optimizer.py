"""AdamW (Loshchilov & Hutter 2019) or Muon for the matrices of the encoder, with clipping and a running average."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from bertwright.errors import BertwrightError
from bertwright.training.processes import ALONE, Processes

Group = dict[str, Any]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to biases and layer norms (as BERT was trained)."""
    return parameter.ndim > 1 and "LayerNorm" not in name


def _turns(name: str, parameter: Tensor) -> bool:
    """Whether Muon applies: to matrices that turn hidden states into hidden states, not to look-up tables and heads."""
    return parameter.ndim == 2 and name.startswith("encoder.")


def layer_rate(name: str, decay: float, layers: int) -> float:
    """The part of the learning rate that a parameter gets, where rates fall by ``decay`` from layer to layer.

    Pooler and head get all of it, the topmost of ``layers`` layers ``decay`` of it, each layer below that much less, the
    embeddings the least (Howard & Ruder 2018, section 3.2).
    """
    if name.startswith("embeddings."):
        return decay ** (layers + 1)
    if name.startswith("encoder.layer."):
        return float(decay ** (layers - int(name.split(".")[2])))
    return 1.0


def _all_of_it(name: str) -> float:
    return 1.0


_BETA1 = 0.9  # decay of Adam's first moment

# The rows of these that never occur stay outside while the others are trained.
_WORDS = "embeddings.word_embeddings.weight"


class Optimizer:
    """Updates the parameters of ``model`` that are trained.

    Args:
        model: its parameters, on their device; sharded ones stay sharded.
        weight_decay: decoupled decay of matrices.
        epsilon: Adam's.
        clip: longest gradient (L2 norm over all parameters); 0 for no limit.
        beta2: decay of Adam's second moment.
        bias_correction: whether Adam's moments are divided by what they lack of their sums while they are young; BERT's
            first release left that out.
        muon: update the encoder's matrices by Muon (Jordan et al. 2024), at AdamW's learning rate: its updates are
            scaled to the size of AdamW's (Liu et al. 2025).
        average: decay of a running average of the weights, which validation and the final model use; 0 for none. It
            begins as the plain mean of the weights after each step, until these are as many as the average looks back
            on: so a short run's average has nothing of the weights that it began with.
        part: the part of the learning rate that each parameter gets, by name.
        scale_loss: scale losses so that float16 gradients do not vanish; steps whose gradients overflow are skipped.

    ``decay`` is the product of all decay factors so far: what an embedding row that never had a gradient has been
    multiplied by (see :mod:`bertwright.training.vocabulary`). Where the model has the averaged weights, it is their own.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight_decay: float,
        epsilon: float,
        clip: float,
        beta2: float = 0.999,
        bias_correction: bool = True,
        muon: bool = False,
        average: float = 0.0,
        part: Callable[[str], float] = _all_of_it,
        scale_loss: bool = False,
    ) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise BertwrightError("nothing to train: every parameter is frozen")
        self.device = next(iter(self.parameters.values())).device
        self._weight_decay = weight_decay
        self._epsilon = epsilon
        self._betas = (_BETA1, beta2)
        self._bias_correction = bias_correction
        self._updates = 0
        self._clip = clip
        self.decay = 1.0
        self._sharded = any(isinstance(p, DTensor) for p in self.parameters.values())
        by_muon = {name: p for name, p in self.parameters.items() if muon and _turns(name, p)}
        by_adam = {name: p for name, p in self.parameters.items() if name not in by_muon}
        self._part_of_words = part(_WORDS)
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(_groups(by_adam, weight_decay, part), betas=self._betas, eps=epsilon, fused=True)
        ]
        if by_muon:
            self._optimizers.append(torch.optim.Muon(_groups(by_muon, weight_decay, part), adjust_lr_fn="match_rms_adamw"))
        self._average_decay = average
        self._average = {name: p.detach().clone() for name, p in self.parameters.items()} if average else {}
        self._averaged = 0  # steps that the average has seen
        self._averages_decay = 1.0
        self._scaler = torch.amp.GradScaler(self.device.type) if scale_loss else None

    @property
    def skips(self) -> bool:
        """Whether a step whose gradients overflow is skipped rather than an error."""
        return self._scaler is not None

    def backward(self, loss: Tensor, processes: Processes = ALONE, *, last: bool = True) -> None:
        """Add the gradients of ``loss``; with a step's ``last`` one, sum them over the processes.

        Each gradient is sent as soon as it is complete, while those below it are computed.
        """
        loss = loss if self._scaler is None else self._scaler.scale(loss)
        if processes.world > 1 and self._sharded:
            loss = loss * processes.world  # sharded parameters average their gradients in place of summing them
        elif processes.world > 1 and last:
            self._backward_and_sum(loss)
            return
        loss.backward()  # type: ignore[no-untyped-call]

    def _backward_and_sum(self, loss: Tensor) -> None:
        sums: list[Any] = []

        def start(parameter: Tensor) -> None:
            sums.append(dist.all_reduce(parameter.grad, async_op=True))

        hooks = [
            p.register_post_accumulate_grad_hook(start)  # type: ignore[no-untyped-call]
            for p in self.parameters.values()
        ]
        try:
            loss.backward()  # type: ignore[no-untyped-call]
            for waiting in sums:
                waiting.wait()
        finally:
            for hook in hooks:
                hook.remove()

    def step(self, rate: float) -> float:
        """Clip the gradients, update the weights, drop the gradients; return the gradients' norm before clipping.

        Where that norm is not finite, weights and moments stay as they are.
        """
        if self._scaler is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(_whole(torch.nn.utils.get_total_norm(gradients)))
        if math.isfinite(norm):
            if self._clip and norm > self._clip:
                torch._foreach_mul_(gradients, self._clip / norm)
            self._updates += 1
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["part"]
            if not self._bias_correction:
                self._undo_correction()
            for optimizer in self._optimizers:
                optimizer.step()
            self.decay *= 1 - rate * self._part_of_words * self._weight_decay
            if self._average:
                self._update_average()
        if self._scaler is not None:
            self._scaler.update()
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _undo_correction(self) -> None:
        """Set rate, epsilon and decay so that torch's corrected AdamW makes the step of the uncorrected one.

        For parameters that had a gradient at each update, as all have that are trained here: torch counts each one's own.
        """
        first, second = (1 - beta**self._updates for beta in self._betas)
        larger = first / math.sqrt(second)
        for group in self._optimizers[0].param_groups:
            group["lr"] *= larger
            group["eps"] = self._epsilon / math.sqrt(second)
            group["weight_decay"] = group["decay"] / larger

    def _update_average(self) -> None:
        self._averaged += 1
        share = max(1 - self._average_decay, 1 / self._averaged)
        weights = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), weights, share)
        self._averages_decay += share * (self.decay - self._averages_decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the model has the averaged weights, and ``decay`` is theirs, if an average is kept."""
        if not self._average:
            yield
            return
        held = {name: p.detach().clone() for name, p in self.parameters.items()}
        decay, self.decay = self.decay, self._averages_decay
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self._average[name])
        try:
            yield
        finally:
            self.decay = decay
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(held[name])

    def take_average(self) -> None:
        """Give the model the averaged weights for good, if an average is kept."""
        with torch.no_grad():
            for name, value in self._average.items():
                self.parameters[name].copy_(value)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that a state has to hold: weights, moments by parameter name and kind, and the average; whole tensors."""
        moments = {
            f"{name}:{kind}": _whole(value)
            for name, parameter in self.parameters.items()
            for kind, value in self._state(parameter).items()
        }
        return {
            "weights": {name: _whole(p.detach()) for name, p in self.parameters.items()},
            "moments": moments,
            "average": {name: _whole(value) for name, value in self._average.items()},
        }

    def values(self) -> dict[str, Any]:
        """What a state has to hold besides, as JSON."""
        scaler = None if self._scaler is None else self._scaler.state_dict()
        average = {"steps": self._averaged, "decay": self._averages_decay} if self._average else None
        return {"decay": self.decay, "average": average, "scaler": scaler}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`tensors` and :meth:`values` gave.

        Raises:
            BertwrightError: they belong to another model or optimizer.
        """
        weights, moments, average = tensors["weights"], tensors["moments"], tensors["average"]
        if (bool(self._average), self._scaler is not None) != (bool(average), values["scaler"] is not None):
            raise BertwrightError("the saved state does not fit this run's averaging or precision; use the run's own recipe")
        self.decay = values["decay"]
        if self._average:
            self._averaged, self._averages_decay = values["average"]["steps"], values["average"]["decay"]
        if self._scaler is not None:
            self._scaler.load_state_dict(values["scaler"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if name not in weights or weights[name].shape != parameter.shape:
                    raise BertwrightError(f"the saved state does not fit this run: {name} differs; use the run's own recipe")
                parameter.copy_(_like(parameter, weights[name]))
                if self._average:
                    self._average[name].copy_(_like(parameter, average[name]))
        for name, parameter in self.parameters.items() if moments else ():  # none where no step has succeeded yet
            kinds = ("step", "exp_avg", "exp_avg_sq") if self._of(parameter) is self._optimizers[0] else ("momentum_buffer",)
            for kind in kinds:
                key = f"{name}:{kind}"
                if key not in moments:
                    raise BertwrightError(f"the saved state has no {key}; it belongs to another run")
                if kind == "step":
                    value = moments[key].to(parameter.device if parameter.is_cuda else "cpu", copy=True)
                else:
                    value = _like(parameter, moments[key])
                self._of(parameter).state[parameter][kind] = value
        self._updates = max((int(value) for key, value in moments.items() if key.endswith(":step")), default=0)

    def _of(self, parameter: Tensor) -> torch.optim.Optimizer:
        if len(self._optimizers) == 1:
            return self._optimizers[0]
        adamw, muon = self._optimizers
        return muon if any(parameter is p for group in muon.param_groups for p in group["params"]) else adamw

    def _state(self, parameter: Tensor) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = self._of(parameter).state[parameter]
        return state


def _groups(parameters: Mapping[str, nn.Parameter], weight_decay: float, part: Callable[[str], float]) -> list[Group]:
    """Parameters that are updated alike, together."""
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in parameters.items():
        decay, share = weight_decay if decays(name, parameter) else 0.0, part(name)
        group = groups.setdefault((decay, share), {"params": [], "weight_decay": decay, "decay": decay, "part": share})
        group["params"].append(parameter)
    return list(groups.values())


def _whole(value: Tensor) -> Tensor:
    # At once to the CPU: a device that needs sharding has no room for all of them whole.
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of ``value`` where, and as, the parameter lies."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device, copy=True)
