"""Threads follow what other processes leave of the cores."""

import time
from types import SimpleNamespace

import psutil
import pytest

from commonweight.engines.llama.model.threads import INTERVAL_SECONDS, ThreadTuner


class Machine:
    """Cores that others use, and a clock."""

    def __init__(self, limit: int) -> None:
        self.now = self.used = 0.0
        self.tuner = ThreadTuner(limit, read_others=lambda: self.used, clock=lambda: self.now)

    def run(self, seconds: float, others: float) -> int:
        self.now += seconds
        self.used += seconds * others
        return self.tuner.choose()


def test_all_on_a_quiet_machine() -> None:
    machine = Machine(4)
    assert [machine.run(1, others) for others in (0, 0.1, 0.29, 0.5, 0.59)] == [4] * 5


@pytest.mark.parametrize(("others", "threads"), [(0.61, 3), (1.0, 3), (1.7, 2), (3.0, 1), (9.0, 1)])
def test_busy_processes_get_their_cores(others: float, threads: int) -> None:
    assert Machine(4).run(1, others) == threads


def test_a_thread_comes_back_only_when_a_core_is_nearly_free() -> None:
    machine = Machine(2)
    assert [machine.run(1, others) for others in (1.0, 0.5, 0.35, 0.25, 0.5)] == [2 - 1, 1, 1, 2, 2]


def test_short_bursts_do_not_count() -> None:
    machine = Machine(2)
    assert machine.run(INTERVAL_SECONDS / 2, 2.0) == 2
    assert machine.run(INTERVAL_SECONDS * 4, 0.1) == 2


def test_what_happened_during_a_pause_does_not_count() -> None:
    machine = Machine(2)
    machine.now, machine.used = 60.0, 60.0
    machine.tuner.restart()
    assert machine.run(1, 0.0) == 2


def test_a_single_thread_stays() -> None:
    assert Machine(1).run(1, 5.0) == 1


def test_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    read = ThreadTuner(2)._read_others

    def read_own() -> float:
        with monkeypatch.context() as patch:
            patch.setattr(psutil.Process, "cpu_times", lambda _: SimpleNamespace(user=0.0, system=0.0))
            everything = read()
        return everything - read()

    before, end = read_own(), time.process_time() + 0.5
    while time.process_time() < end:
        pass
    assert read_own() - before == pytest.approx(0.5, abs=0.1)
