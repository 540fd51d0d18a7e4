"""The lock of the text encoder goes around."""

import threading

from commonweight.guard.encoders.fair_lock import FairLock


def wait_for(lock: FairLock, waiting: int) -> None:
    while lock.waiting < waiting:
        threading.Event().wait(0.001)


def test_one_that_asks_again_comes_after_those_that_wait() -> None:
    lock, order = FairLock(), list[str]()
    second = threading.Event()

    def take(name: str, times: int) -> None:
        for i in range(times):
            with lock:
                order.append(f"{name}{i}")
                if i == 0 and name == "long":
                    second.wait(10)

    threads = [threading.Thread(target=take, args=("long", 3))]
    with lock:
        threads[0].start()
        wait_for(lock, 1)
        threads.append(threading.Thread(target=take, args=("short", 1)))
        threads[1].start()
        wait_for(lock, 2)
    second.set()
    for thread in threads:
        thread.join()
    assert order == ["long0", "short0", "long1", "long2"]
    assert lock.waiting == 0
    with lock:
        pass


def test_an_error_passes_the_lock_on() -> None:
    lock = FairLock()
    try:
        with lock:
            raise ValueError
    except ValueError:
        pass
    with lock:
        assert lock.waiting == 0
