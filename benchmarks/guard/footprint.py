"""Start time and resident memory of a guard, in a process that does nothing else."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READ = "How does bread rise?"
"""Read once, as weights come into memory when they are used."""


@dataclass(frozen=True)
class Footprint:
    """What a process with a guard takes."""

    seconds: float
    """From before the imports until a text was read."""
    resident: int
    """Bytes."""


def measure_start(bundle: Path | None, encoders: Sequence[str]) -> Footprint:
    """Measure a process that loads a bundle and encoders (``minilm``, ``use``), and reads a text.

    Raises:
        OSError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.guard.footprint", str(bundle or ""), *encoders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"a guard did not start: {done.stderr.strip().splitlines()[-1:]}")
    return Footprint(**json.loads(done.stdout))


def main(bundle: str, *encoders: str) -> None:
    """Load, read, and print what it took."""
    begun = time.perf_counter()
    import psutil

    from commonweight.guard import DEFAULT, Bundle
    from commonweight.guard.encoders.encoder import load_encoder
    from commonweight.guard.encoders.multilingual import load_multilingual_encoder
    from commonweight.guard.heads.scorer import Scorer

    Scorer(Bundle.load(Path(bundle) if bundle else DEFAULT, None), None)
    if "minilm" in encoders:
        load_encoder().embed([READ])
    if "use" in encoders:
        load_multilingual_encoder().embed([READ])
    found = {"seconds": time.perf_counter() - begun, "resident": psutil.Process().memory_info().rss}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
