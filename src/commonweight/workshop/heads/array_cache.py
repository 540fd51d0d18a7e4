"""Cache of arrays that texts are turned into, in a private folder: numbers by digests, no texts."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats16 = npt.NDArray[np.float16]


class ArrayCache:
    """Arrays of one kind by the digests of what they were computed of.

    ``name`` tells what computes them: an encoder, or a model and its layers.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None
        self._rows: dict[bytes, Floats16] = {}
        if folder is None:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
        if self._path.exists():
            with np.load(self._path, allow_pickle=False) as stored:
                digests, arrays = stored["digests"], stored["arrays"]
            self._rows = {digest.tobytes(): row for digest, row in zip(digests, arrays, strict=True)}

    def fetch(
        self, keys: Sequence[str], compute: Callable[[list[int]], npt.NDArray[np.floating]], step: int = 1000
    ) -> npt.NDArray[np.float32]:
        """Fetch an array for each key; those that are not there are computed, so many at once, and kept.

        ``compute`` gets the numbers of the keys. Numbers have half precision, whether they were kept or not.
        """
        digests = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest() for key in keys]
        first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
        left = [i for digest, i in first.items() if digest not in self._rows]
        for at in range(0, len(left), step):
            some = sorted(left[at : at + step])
            for i, row in zip(some, compute(some), strict=True):
                self._rows[digests[i]] = row.astype(np.float16)
            self._save()
        if not digests:
            return np.asarray(compute([]), np.float32)
        return np.stack([self._rows[digest] for digest in digests]).astype(np.float32)

    def _save(self) -> None:
        if self._path is None:
            return
        digests = np.frombuffer(b"".join(self._rows), np.uint8).reshape(-1, 32)
        temporary = self._path.with_suffix(".tmp.npz")
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(file, digests=digests, arrays=np.stack(list(self._rows.values())))
        temporary.replace(self._path)
