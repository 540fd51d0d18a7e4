"""The layout of a build folder: outputs by stage and key, records by identity, what is being built, one lock."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commonweight.lineage.digests import RECORD, LineageError
from commonweight.lineage.record import Record, decode_record, read_record

STATUS = "status.json"
"""Which stages a build has, their keys, states and outputs; a console may read it."""
RECIPE = "recipe.json"
"""The effective recipe of the last build."""
_KEY_LETTERS = 16


class BuildFolder:
    """``build/``: private to its owner, one build at a time, and every output complete or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder, readable by its owner only."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        for name in ("outputs", "drafts", "records"):
            (self.path / name).mkdir(exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one build.

        Raises:
            LineageError: another build holds it.
        """
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LineageError(f"Another build is running in {self.path}.") from error
            yield

    def get_output(self, stage: str, key: str) -> Path:
        """Where the output of a stage with a key is, or will be."""
        return self.path / "outputs" / stage / key[:_KEY_LETTERS]

    def get_draft(self, stage: str, key: str) -> Path:
        """Where a stage writes until it is done; what a killed build left there is still there."""
        return self.path / "drafts" / f"{stage}-{key[:_KEY_LETTERS]}"

    def get_checkpoints(self, stage: str, key: str) -> Path:
        """Where a stage keeps checkpoints until its output is published; it makes the folder if it wants one."""
        return self.path / "drafts" / f"{stage}-{key[:_KEY_LETTERS]}.checkpoints"

    def publish(self, stage: str, key: str) -> Path:
        """Rename a draft, whose record is written, to the output that it is; keep its record by identity."""
        draft, output = self.get_draft(stage, key), self.get_output(stage, key)
        record = read_record(draft)
        _write_whole(self.path / "records" / f"{record.identity}.json", record.encode())
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            shutil.rmtree(output)
        draft.rename(output)
        _sync_folder(output.parent)
        shutil.rmtree(self.get_checkpoints(stage, key), ignore_errors=True)
        return output

    def replace_record(self, stage: str, key: str, record: Record) -> None:
        """Give an output whose files stay another record: its inputs have others now, and the same content."""
        _write_whole(self.path / "records" / f"{record.identity}.json", record.encode())
        _write_whole(self.get_output(stage, key) / RECORD, record.encode())

    def read_records(self) -> dict[str, Record]:
        """All records of outputs that were ever built here, by identity.

        Raises:
            LineageError: a file of a record was changed.
        """
        records: dict[str, Record] = {}
        for path in sorted((self.path / "records").glob("*.json")):
            record = decode_record(path.read_bytes(), str(path))
            if record.identity != path.stem:
                raise LineageError(f"{path} is not the record that its name says.")
            records[record.identity] = record
        return records

    def find_record(self, stage: str, key: str) -> Record | None:
        """The record of the output of a stage with a key; None if it was not built."""
        output = self.get_output(stage, key)
        return read_record(output) if (output / RECORD).exists() else None

    def write_recipe(self, recipe: bytes) -> None:
        """Replace the effective recipe of the last build."""
        _write_whole(self.path / RECIPE, recipe)

    def write_status(self, status: dict[str, object]) -> None:
        """Replace the status file."""
        _write_whole(self.path / STATUS, json.dumps(status, indent=1).encode() + b"\n")

    def read_status(self) -> dict[str, object] | None:
        """The status file; None before the first build."""
        path = self.path / STATUS
        try:
            status = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LineageError(f"{path} is not a status file.") from error
        if not isinstance(status, dict):
            raise LineageError(f"{path} is not a status file.")
        return status


def _write_whole(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
