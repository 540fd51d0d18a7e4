"""Jobs whose prefixes are only on disk."""

from pathlib import Path

import pytest
from driving import PREFIX, Driver, Machine, job, words

from commonweight.engines.contract import Job
from commonweight.engines.llama.kv.block_files import compute_fingerprint
from commonweight.engines.llama.kv.disk_tier import DiskTier

pytest_plugins = "machines"


class Held(DiskTier):
    """A disk that reads only when it is told to."""

    def hold(self) -> None:
        self.held: list[tuple[str, str]] | None = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for tenant, name in held:
            super().read(tenant, name)

    def read(self, tenant: str, name: str) -> None:
        if self.held is None:
            super().read(tenant, name)
        else:
            self.held.append((tenant, name))


def on_disk(machine: Machine, folder: Path, *jobs: Job) -> tuple[Driver, Held]:
    """A scheduler after a restart, that finds these jobs on a disk that holds its breath."""
    earlier = machine.drive(
        disk=DiskTier(folder, compute_fingerprint(test=1), capacity=1 << 30, wake=lambda: None)
    )
    earlier.run(*jobs)
    earlier.close()
    disk = Held(folder, compute_fingerprint(test=1), capacity=1 << 30, wake=lambda: None)
    disk.hold()
    return machine.drive(disk=disk), disk


def test_waiting_for_the_disk_is_no_work(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    (run_id,) = driver.submit(job(PREFIX))
    driver.step()
    assert not driver.scheduler.has_work
    driver.step(3)
    assert not driver.scheduler.has_work
    # Others are not held up.
    (other,) = driver.submit(job(words(20, 5), 3))
    while driver.scheduler.has_work:
        driver.step()
    assert driver.outcomes[other].is_done
    disk.release()
    driver.finish()
    assert driver.outcomes[run_id].cached == 599
    assert driver.scheduler.stats.disk_tokens == 599
    assert driver.prefilled == 20 + 1
    driver.close()


def test_who_waits_for_the_disk_can_be_cancelled(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    driver.submit(job(PREFIX), job(PREFIX))
    driver.step()
    driver.scheduler.cancel(0)
    assert not driver.scheduler.has_work
    disk.release()
    driver.finish()
    assert driver.outcomes[1].cached == 599
    driver.close()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_damaged_files_cost_time_only(machine: Machine, tmp_path: Path, depth: int) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX, 3))
    driver.submit(job(PREFIX, 3))
    driver.step()
    (waiting,) = driver.scheduler._waiting
    name = waiting.match.blocks[depth].name
    (file,) = (path for path in tmp_path.rglob("*.kv") if path.stem == name)
    file.write_bytes(file.read_bytes()[:-100])
    disk.release()
    driver.finish()
    assert driver.outcomes[0].cached == 256 * depth
    driver.close()


def test_a_disk_that_is_slower_than_computing_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    disk.read_rate = 1.0
    (outcome,) = driver.run(job(PREFIX))
    assert outcome.cached == 0
    driver.close()
