"""How a model is spread over processes, and how its layers are compiled: both without a change to the model."""

from __future__ import annotations

import shutil

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from bertwright.errors import BertwrightError
from bertwright.model import AddNorm, Intermediate, Pretraining
from bertwright.training.processes import Processes


def sharded(model: Pretraining, processes: Processes) -> None:
    """Spread parameters, gradients and moments over the processes (FSDP2); each layer is gathered when it is used.

    Raises:
        BertwrightError: there is only one process.
    """
    if processes.world == 1:
        raise BertwrightError("--shard spreads a model over processes; start several with torchrun, or leave it out")
    mesh = init_device_mesh(torch.device(processes.device).type, (processes.world,))
    for layer in model.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gathered(model: Pretraining) -> Pretraining:
    """The model with its parameters whole: itself, or, where they are spread, a copy on the CPU; all processes call it."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    whole = {
        name: value.full_tensor().cpu() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
    copy = Pretraining(model.config)
    copy.load_state_dict(whole)
    return copy


def compiled(model: Pretraining) -> None:
    """Compile the parts of the layers that work on each token alone; attention has kernels of its own.

    Raises:
        BertwrightError: the machine has no compiler for its CPU.
    """
    if next(model.parameters()).device.type == "cpu" and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise BertwrightError("--compile needs a C++ compiler such as g++; install one, or leave it out")
    for module in model.encoder.modules():
        if isinstance(module, AddNorm | Intermediate):
            module.compile(dynamic=True)
