"""The export stage: a model folder to GGUF files, and the report that they behave like it."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from commonweight.workshop.export.f16 import write_f16
from commonweight.workshop.export.held_out import Text
from commonweight.workshop.export.quantise import requantise
from commonweight.workshop.export.safetensors_file import WEIGHTS, copy_with_metadata
from commonweight.workshop.export.settings import ExportSettings


def run_export(
    settings: ExportSettings,
    model: Path,
    text: Text,
    metadata: Mapping[str, str],
    output: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Write the GGUF files of a model folder and their parity report, and its weights with the same metadata.

    Args:
        text: what the files are compared on: a dataset folder, of which validation rows are read, a file of
            text, or texts. No model must have been trained on it.
        metadata: further keys of the files, such as ``general.license`` and ``commonweight.lineage.head``.

    Returns:
        Seconds of the parts, which differ from run to run.

    Raises:
        ExportError: the model is not exported, or a file is further from it than a threshold. The report is
            written nevertheless where there is one.
    """
    from commonweight.workshop.export.parity import PARITY, check_thresholds, compare_exports

    observed: dict[str, float | str] = {}
    files: dict[str, Path] = {}
    for kind in ("F16", *settings.quantisations):
        begin = time.monotonic()
        files[kind] = path = output / f"{settings.name}-{kind}.gguf"
        if kind == "F16":
            write_f16(model, path, {"general.name": settings.name, **metadata})
        else:
            requantise(files["F16"], kind, path)
        observed[f"{kind}_seconds"] = time.monotonic() - begin
        report(f"export: {path.name}, {path.stat().st_size:,} bytes")
    copy_with_metadata(model / WEIGHTS, output / WEIGHTS, metadata)
    begin = time.monotonic()
    parity = compare_exports(settings.parity, model, files, text, report)
    observed["parity_seconds"] = time.monotonic() - begin
    (output / PARITY).write_text(parity.model_dump_json(indent=2) + "\n", encoding="utf-8")
    check_thresholds(parity)
    return observed
