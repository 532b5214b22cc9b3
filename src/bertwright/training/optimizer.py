"""AdamW (Loshchilov & Hutter 2019) with bias correction, decay where it belongs, and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertwright.errors import BertwrightError


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, not to biases and layer norms (as BERT was trained)."""
    return parameter.ndim > 1 and "LayerNorm" not in name


class Optimizer:
    """AdamW over the parameters of ``model`` that are trained.

    ``decay`` is the product of all decay factors so far: what an embedding row that never had a gradient has been
    multiplied by (see :mod:`bertwright.training.vocabulary`).
    """

    def __init__(self, model: nn.Module, *, weight_decay: float, epsilon: float, clip: float) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise BertwrightError("nothing to train: every parameter is frozen")
        self.device = next(iter(self.parameters.values())).device
        self._weight_decay = weight_decay
        self._clip = clip
        self.decay = 1.0
        decayed = [p for name, p in self.parameters.items() if decays(name, p)]
        others = [p for name, p in self.parameters.items() if not decays(name, p)]
        self._adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
            eps=epsilon,
            fused=True,
        )

    def step(self, rate: float) -> float:
        """Clip the gradients, update the weights, drop the gradients; return the gradients' norm before clipping.

        Where that norm is not finite, weights and moments stay as they are.
        """
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            if self._clip and norm > self._clip:
                torch._foreach_mul_(gradients, self._clip / norm)
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
            self.decay *= 1 - rate * self._weight_decay
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, by parameter name and kind."""
        return {
            f"{name}:{kind}": value
            for name, parameter in self.parameters.items()
            for kind, value in self._adamw.state[parameter].items()
        }

    def restore(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Take back what :meth:`tensors` gave."""
        self.decay = decay
        for name, parameter in self.parameters.items():
            for kind in ("step", "exp_avg", "exp_avg_sq"):
                key = f"{name}:{kind}"
                if key not in tensors:
                    raise BertwrightError(f"the saved state has no {key}; it belongs to another run")
                device = parameter.device if kind != "step" or parameter.is_cuda else torch.device("cpu")
                self._adamw.state[parameter][kind] = tensors[key].to(device, copy=True)
