"""Several processes that train together, one for each device, as ``torchrun`` starts them.

Everything goes through ``torch.distributed``: NCCL between GPUs, gloo between CPUs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from bertwright.errors import BertwrightError


@dataclass(frozen=True)
class Processes:
    """``world`` processes, of which this one has the number ``rank`` (``local_rank`` on its own machine)."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: str = "cpu"  # where what is sent has to lie

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def summed(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """The sums over all processes of scalars by name; every process gives the same names, in the same order.

        Waits only once for a device that still computes them.
        """
        on_device = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if self.world == 1 and not on_device:
            return {name: float(value) for name, value in values.items()}
        if self.world == 1:
            sums = torch.stack([value.double() for value in on_device.values()]).tolist()
            floats = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
            return floats | dict(zip(on_device, sums, strict=True))
        parts = [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values.values()]
        row = torch.stack(parts)
        dist.all_reduce(row)
        return dict(zip(values, row.tolist(), strict=True))

    def agreed(self, value: float) -> float:
        """The first process's value, for what each would measure a little differently."""
        if self.world == 1:
            return value
        row = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(row, 0)
        return float(row)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.world == 1:
            return flag
        row = torch.tensor([float(flag)], dtype=torch.float64, device=self.device)
        dist.all_reduce(row, dist.ReduceOp.MAX)
        return bool(row)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Processes()


def under_torchrun() -> bool:
    """Whether ``torchrun`` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def restarted() -> bool:
    """Whether ``torchrun`` has started these processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def together(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; alone without it. ``device`` is auto, cpu or cuda.

    Raises:
        BertwrightError: there are more processes on this machine than GPUs.
    """
    if not under_torchrun():
        yield ALONE
        return
    rank, world, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu and local >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BertwrightError(f"torchrun: process {local} of this machine has no GPU of its own; --nproc-per-node {count}")
    place = f"cuda:{local}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=torch.device(place) if on_gpu else None)
    try:
        yield Processes(rank, world, local, place)
    finally:
        dist.destroy_process_group()
