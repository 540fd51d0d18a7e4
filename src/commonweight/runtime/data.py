"""The data folder: keys and records, batches, uploaded files, the installation's secret key.

Imports the database where it is used, since that takes long.
"""

from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class DataFolder:
    """A folder, and a database in it or elsewhere."""

    path: Path
    database: str | None = None
    """URL of the database; None: a SQLite file in the folder."""

    @classmethod
    def from_options(cls, path: Path | None = None, database: str | None = None) -> "DataFolder":
        """Make it from options. Without a path, the user's own folder is used."""
        return cls(path.expanduser() if path else platformdirs.user_data_path("commonweight"), database)

    @property
    def database_url(self) -> str:
        """The URL of the database. The folder is made if need be."""
        if self.database is None:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)  # a wrong path is told before the import
        from commonweight.store import make_sqlite_url

        return self.database or make_sqlite_url(self.path)

    def load_key(self) -> bytes:
        """Load the installation's secret key, which is created on first use."""
        from commonweight.signing import load_key

        return load_key(self.path)
