"""Where a server keeps what outlives it: keys and records, batches, uploaded files, its signing key."""

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from commonweight.store import sqlite_url


@dataclass(frozen=True)
class Data:
    """A folder, and a database in it or elsewhere."""

    folder: Path
    url: str | None = None
    """Of the database; None: it is a file in the folder."""

    @classmethod
    def at(cls, folder: Path | None, url: str | None) -> "Data":
        """What the options mean. Without a folder, the user's own is taken."""
        return cls(folder.expanduser() if folder else platformdirs.user_data_path("commonweight"), url)

    @property
    def database_url(self) -> str:
        """The URL of the database. The folder is made if need be."""
        return self.url or sqlite_url(self.folder)
