"""What benchmarks take for a result."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import records
from bertwright.finetuning import Run
from bertwright.interrupts import Stopped


def test_a_run_that_was_broken_off_is_no_result() -> None:
    model = cast(Any, None)
    finished = Run(Path("run"), {"chosen_by": "accuracy"}, model)
    assert records.whole(finished) is finished
    with pytest.raises(Stopped, match="a benchmark broken off") as stopped:
        records.whole(Run(Path("run"), {"chosen_by": "accuracy"}, model, signal.SIGTERM))
    assert stopped.value.signal == signal.SIGTERM
