"""The matrix products of the model, through the fastest library that the machine offers.

In float32 on x86 CPUs, torch sends matrix products to MKL; its bundled oneDNN is quicker for the shapes that BERT has,
and as exact: by up to a fifth on AMD's Zen 4, and more than twice as quick on Zen 5, where MKL leaves half of the vector
units idle.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _onednn_product() -> Any:
    """The oneDNN linear operator of this torch build, or None where there is none or it does not work."""
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        operator(torch.ones(2, 2), torch.ones(2, 2), None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return operator


_product: Any = _onednn_product()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias`` by the quickest library, outside autograd."""
    if not _suits(x, weight):
        return F.linear(x, weight, bias)
    result: Tensor = _product(x, weight, bias, "none", [], "")
    return result


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        _product is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # whose own product joins what stands around it
    )


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        result: Tensor = _product(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t(), None, "none", [], "") if needs_x else None,
            _weight_gradient(grad, x) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    if len(x) == 0:  # oneDNN makes no sum of nothing
        return grad.new_zeros(grad.shape[1], x.shape[1])
    gradient: Tensor = _product(grad.t(), x.t(), None, "none", [], "")
    return gradient


class Linear(nn.Linear):
    """``nn.Linear`` for packed input of shape (T, features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        if not _suits(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return product(x, self.weight, self.bias)
        trained: Tensor = _OneDNNLinear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return trained
