"""Dropout that can be drawn again.

Every mask is a pure function of (seed, step, place): on the CPU from a counter-based generator (Philox, Salmon et al.
2011), so that a resumed run draws the very masks it would have drawn, with no generator state to save. It is also
several times quicker than drawing one float per value: sixteen random bits decide each value.

On other devices torch's own fused dropout is used, under a generator that the training loop seeds from (seed, step).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Noise:
    """The randomness of one forward pass in training. ``None`` in its place means evaluation: no dropout.

    ``place`` counts the calls of one forward pass, so that no two of them share a mask.
    """

    def __init__(self, seed: int, step: int, device: torch.device | None = None, batch: int = 0) -> None:
        self._seed = seed
        self._step = step
        self._place = batch << 32  # which of a step's batches, so that none shares a mask with another
        if device is not None and device.type != "cpu":
            first, _ = np.random.Philox(key=seed, counter=[0, 2, batch, step]).random_raw(2)
            torch.manual_seed(int(first) >> 1)

    def again(self) -> Callable[[], None]:
        """Return what goes back to here, so that the draws from here on can be made a second time."""
        place = self._place

        def back() -> None:
            self._place = place

        return back

    def mask(self, shape: tuple[int, ...], probability: float) -> Tensor:
        """A float32 CPU tensor of 0 (with ``probability``, to within 2^-16) and 1 / (1 - probability)."""
        self._place += 1
        generator = np.random.Philox(key=self._seed, counter=[0, 0, self._place, self._step])
        size = math.prod(shape)
        bits = torch.from_numpy(np.asarray(generator.random_raw((size + 3) // 4)).view(np.int16)[:size])
        dropped = min(round(probability * 65536), 65535)  # below 1, something is kept, however seldom
        # int16 spans -32768 .. 32767, so the lowest `dropped` of the 65536 equally likely values are dropped. Comparing
        # straight into floats is several times quicker than making truth values first and floats of them.
        kept = torch.ge(bits, dropped - 32768, out=torch.empty(size, dtype=torch.float32))
        return kept.mul_(65536 / (65536 - dropped)).view(shape)


def dropout(values: Tensor, probability: float, noise: Noise | None) -> Tensor:
    """Zero values with ``probability`` and scale the rest to keep the mean; without noise, return them as they are."""
    if noise is None or probability == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, probability, training=True)
    finer = torch.promote_types(values.dtype, torch.float32)  # of half precision, the scale of a mask would be off
    return (values.to(finer) * noise.mask(tuple(values.shape), probability).to(finer)).to(values.dtype)


def add_dropout(residual: Tensor, values: Tensor, probability: float, noise: Noise | None) -> Tensor:
    """``residual + dropout(values)`` in one pass over memory."""
    if noise is None or probability == 0:
        return residual + values
    if values.device.type != "cpu":
        return residual + F.dropout(values, probability, training=True)
    dtype = torch.promote_types(residual.dtype, values.dtype)
    finer = torch.promote_types(dtype, torch.float32)
    mask = noise.mask(tuple(values.shape), probability).to(finer)
    return torch.addcmul(residual.to(finer), values.to(finer), mask).to(dtype)
