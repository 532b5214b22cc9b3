"""Preparing a corpus on all machines of a Ray cluster, through Ray Data (https://docs.ray.io/en/latest/data/data.html).

The corpus is read on the machine of the caller: the files need to be there only. Units travel through Ray to workers on
all machines, which write shards to the output directory: that has to be a place that every machine sees.
"""

from __future__ import annotations

import heapq
import os
import pickle
from collections.abc import Callable, Generator, Iterator
from typing import Any

from bertwright.data.units import Finished, Unit
from bertwright.errors import BertwrightError


def in_ray(
    make: Callable[[], Callable[[Unit], Finished]], units: Callable[[], Iterator[Unit]], workers: int
) -> Generator[Finished, None, None]:
    """Yield what becomes of each unit, in their order. Ray is started, and stopped again, unless it runs already.

    Args:
        make: Called once in each worker; gives the function.
        units: Called once, on this machine; gives its inputs.
        workers: Processes, each on one CPU; 0 for as many as Ray has CPUs.

    Raises:
        BertwrightError: Ray is missing, or the function or the reading of units raised one.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise BertwrightError("--engine ray needs: pip install 'bertwright[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    # A block for each unit, else several would be gathered into one, for one worker.
    context.target_max_block_size, context.enable_progress_bars = None, False
    try:
        processes = workers or int(ray.cluster_resources()["CPU"])
        # The reader asks for no CPU of its own: on a single one it would keep it from the workers for ever.
        rows = ray.data.read_datasource(_source(units), num_cpus=0, override_num_blocks=1).map(
            _Worker,
            fn_constructor_args=(make,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=processes),
            num_cpus=1,
        )
        yield from _in_order(pickle.loads(row["finished"]) for row in rows.iter_rows())
    finally:
        context.target_max_block_size, context.enable_progress_bars = before
        if started:
            ray.shutdown()


class _Worker:
    """What Ray calls with each unit, both ways as bytes, which it need not understand. An error is a result too."""

    def __init__(self, make: Callable[[], Callable[[Unit], Finished]]) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._function = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit = pickle.loads(row["unit"])
        if isinstance(unit, Unit):
            try:
                unit = self._function(unit)
            except BertwrightError as error:
                unit = error
        return {"finished": pickle.dumps(unit)}


def _source(units: Callable[[], Iterator[Unit]]) -> Any:
    """The units as a source of Ray Data with a single task, which streams, one unit a block."""
    import pyarrow
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def blocks() -> Iterator[pyarrow.Table]:
        try:
            for unit in units():
                yield block(unit)
        except BertwrightError as error:
            yield block(error)

    def block(value: object) -> pyarrow.Table:
        return pyarrow.table({"unit": pyarrow.array([pickle.dumps(value)], pyarrow.large_binary())})

    class Units(Datasource):  # type: ignore[misc]  # Ray has no types to check against
        supports_distributed_reads = False

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
            return [ReadTask(blocks, BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None))]

    return Units()


def _in_order(results: Iterator[Finished | BertwrightError]) -> Iterator[Finished]:
    """Ray gives results as they come; only small ones wait here."""
    early: list[tuple[int, Finished]] = []
    number = 0
    for result in results:
        if isinstance(result, BertwrightError):
            raise result
        heapq.heappush(early, (result.number, result))
        while early and early[0][0] == number:
            yield heapq.heappop(early)[1]
            number += 1
