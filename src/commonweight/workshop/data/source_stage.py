"""The stage ``source``: one source becomes a dataset folder."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from commonweight.workshop.data.dataset import DatasetWriter
from commonweight.workshop.data.manifest import SourceOrigin
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.data.settings import SourceSettings
from commonweight.workshop.data.sources import locate_source, read_source

_DOWNLOADS = "downloads"
_REPORT_EVERY = 100_000


def run_source(
    settings: SourceSettings,
    root: Path,
    data_root: Path | None,
    output: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Read a source into a dataset folder.

    Args:
        root: the recipe's folder.
        data_root: a local mirror, which stands for the hub (``org/name/...``) and the web (a file with the
            digest or the name of the URL's).
        output: where the dataset folder is; a download that broke off in it goes on.

    Raises:
        DataError: the source is not there, has changed, is torn, or a row does not fit.
    """
    began = time.monotonic()
    downloads = output / _DOWNLOADS
    source = locate_source(settings, root, data_root, downloads, report)
    dropped: Counter[str] = Counter()
    with DatasetWriter(output) as writer:
        for row in read_source(settings, source, dropped):
            writer.add(row)
            if writer.tally.rows % _REPORT_EVERY == 0:
                report(f"{settings.name}: {writer.tally.rows:,} rows")
        if not writer.tally.rows:
            raise DataError(f"The source {settings.name} has no rows with text.")
        origin = SourceOrigin(
            name=settings.name,
            location=settings.location,
            revision=source.revision,
            sha256=source.sha256,
            files=len(source.files),
        )
        manifest = writer.finish([origin], dropped=dropped, evaluation=settings.evaluation)
    shutil.rmtree(downloads, ignore_errors=True)
    report(f"{settings.name}: {manifest.rows:,} rows, {manifest.characters:,} characters")
    return {"seconds": time.monotonic() - began}
