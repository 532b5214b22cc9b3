"""Several processes that train together, one for each device, as ``torchrun`` starts them.

Everything goes through ``torch.distributed``: NCCL between GPUs, gloo between CPUs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bertwright.errors import BertwrightError

_PATIENCE = 1800.0  # seconds to wait for processes that do not come: as long as torch itself waits


@dataclass(frozen=True)
class Processes:
    """``world`` processes, of which this one has the number ``rank`` (``local_rank`` on its own machine)."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: str = "cpu"  # where what is sent has to lie
    launch: str = ""  # the same for all that one call of torchrun starts, those that it starts again included

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


def program() -> str:
    """What to type for ``bertwright``, to have as many processes as there are now."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return "bertwright"
    nodes, each = (os.environ.get(name, "1") for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    meeting = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT " if nodes != "1" else ""
    return f"torchrun {meeting}--nproc-per-node {each} -m bertwright"


@contextlib.contextmanager
def together(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; alone without it. ``device`` is auto, cpu or cuda.

    Raises:
        BertwrightError: there are more processes on this machine than GPUs, or some do not come.
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
    store, _, _ = next(rendezvous("env://", rank, world))
    launch = _launch(store)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=_unused_part(store, rank, world),
        rank=rank,
        world_size=world,
        device_id=torch.device(place) if on_gpu else None,
    )
    try:
        yield Processes(rank, world, local, place, launch)
    finally:
        dist.destroy_process_group()


def _launch(store: Store) -> str:
    """What tells this call of torchrun from all others; the count of restarts does not, as nodes come and go without one.

    It is torchrun's id, and where nobody gave one, a mark in the store, which lives as long as the first node's torchrun.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return given if given != "none" else store.compare_set("bertwright/launch", "", secrets.token_hex(8)).decode()


def _unused_part(store: Store, rank: int, world: int) -> Store:
    """A part of torchrun's store that no earlier start of these processes has written to.

    The store outlives them, and torch would take addresses of the dead for those of the living, and wait for them. So each
    process announces itself under a new name, and the first answers to the names until all have heard it.
    """
    own = secrets.token_hex(8)
    if rank > 0:
        store.set(f"bertwright/here/{rank}", own)
        first = store.get(f"bertwright/answer/{own}").decode()  # waits until it is there
        store.set(f"bertwright/heard/{first}/{rank}", "yes")
        return PrefixStore(first, store)
    silent = set(range(1, world))
    deadline = time.monotonic() + _PATIENCE
    while silent:
        for other in sorted(silent):
            if store.check([f"bertwright/heard/{own}/{other}"]):
                silent.remove(other)
            elif store.check([f"bertwright/here/{other}"]):
                name = store.get(f"bertwright/here/{other}").decode()
                store.set(f"bertwright/answer/{name}", own)
        if time.monotonic() > deadline:
            raise BertwrightError(f"torchrun: {len(silent)} of {world} processes did not come; start them again")
        time.sleep(0.02)
    return PrefixStore(own, store)
