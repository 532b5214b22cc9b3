"""Where the arithmetic happens: device, threads, precision."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bertwright.errors import BertwrightError, did_you_mean
from bertwright.linear import Linear
from bertwright.memory import keep_freed_memory

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Machine:
    """A device and the precision of matrix products on it; weights and optimizer stay in float32."""

    device: torch.device
    precision: str

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", threads: int = 0) -> Machine:
        """Take the GPU if there is one; bfloat16 there, float32 on a CPU, unless told otherwise.

        Raises:
            BertwrightError: there is no such device or precision, or cuda is not there, or float16 without it.
        """
        for option, value, known in (("--device", device, DEVICES), ("--precision", precision, PRECISIONS)):
            if value not in known:
                raise BertwrightError(f"{option} is {value!r}{did_you_mean(value, known)} (known: {', '.join(known)})")
        if threads < 0:
            raise BertwrightError(f"--threads is {threads}; use a number above 0, or 0 for one a core")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise BertwrightError("--device cuda: this torch sees no CUDA device; use --device cpu")
        if precision == "float16" and device == "cpu":
            raise BertwrightError("--precision float16: a CPU has no fast products of it; use bfloat16 or float32")
        if threads:
            torch.set_num_threads(threads)
        if device == "cpu":
            keep_freed_memory()
        if precision == "auto":
            precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        return cls(torch.device(device), precision)

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    @property
    def token_budget(self) -> int:
        """Tokens of a batch for prediction: enough to fill the device, few enough to stay in its caches."""
        return 2048 if self.device.type == "cpu" else 65536

    def peak_flops(self) -> float:
        """Floating-point operations a second of the best of a few large matrix products, as fast as they go here."""
        sizes, repeats = ((1024,), 5) if self.device.type == "cpu" else ((4096, 8192), 10)
        best = 0.0
        with torch.inference_mode(), self.computing():
            for size in sizes:
                a = torch.randn(size, size, device=self.device)
                a = a if self.precision == "float32" else a.to(getattr(torch, self.precision))
                layer = Linear(size, size, bias=False, device=self.device, dtype=a.dtype)
                for product in (partial(torch.matmul, a, a), partial(layer, a)):
                    for _ in range(repeats):
                        self.wait()
                        began = time.perf_counter()
                        product()
                        self.wait()
                        best = max(best, 2 * size**3 / (time.perf_counter() - began))
        return best

    def wait(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory(self) -> int:
        """Bytes that this process held at most: on the GPU if it computes there, else in memory."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def describe(self) -> str:
        """The device for a report, such as ``AMD EPYC, 2 threads``."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
