"""Builds a recipe in a process that ends at a chosen moment, as by kill -9: ``killed_build.py RECIPE MOMENT``."""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_recipe import build

MOMENTS = {
    "before the record": ("commonweight.workshop.recipe.build", "write_record"),
    "before publishing": ("commonweight.lineage.build_folder", "BuildFolder.publish"),
    "before the rename": ("pathlib", "Path.rename"),
    "after the rename": ("commonweight.lineage.build_folder", "_sync_folder"),
}
CHECKPOINT = "after the second checkpoint"


def end(*_arguments: object) -> None:
    """End this process, with no way to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(moment: str) -> None:
    """Replace the function that is called at the moment."""
    if moment == CHECKPOINT:
        from commonweight.workshop.training import pretrain

        save: Callable[..., None] = pretrain.save_checkpoint
        saved: list[int] = []

        def save_twice(*arguments: Any) -> None:
            save(*arguments)
            saved.append(1)
            if len(saved) == 2:
                end()

        setattr(pretrain, save.__name__, save_twice)
        return
    module, name = MOMENTS[moment]
    *owners, attribute = name.split(".")
    owner: object = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, attribute, end)


if __name__ == "__main__":
    path, moment, *only = sys.argv[1:]
    arrange(moment)
    build(Path(path), only[0] if only else None)
