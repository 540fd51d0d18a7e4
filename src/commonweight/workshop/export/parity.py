"""The parity report: whether exported files behave like the model, and the thresholds that stop a build."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from commonweight.workshop.export.divergence import WINDOW, Divergence, measure_divergence
from commonweight.workshop.export.f16 import read_config
from commonweight.workshop.export.held_out import Text, make_windows
from commonweight.workshop.export.prompt_parity import (
    TemplateParity,
    TokenizerParity,
    compare_templates,
    compare_tokenizers,
)
from commonweight.workshop.export.safetensors_file import WEIGHTS
from commonweight.workshop.export.settings import ExportError, KlBounds, ParitySettings

PARITY = "parity.json"


class ModelFigures(BaseModel):
    """The model that files are compared with."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Of its weights."""
    perplexity: float


class ComparedText(BaseModel):
    """The text that distributions are compared on."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Of its token ids, as decimal numbers with commas, a line a window."""
    positions: int
    windows: int


class FileFigures(Divergence):
    """An exported file, and how far it is from the model."""

    name: str
    sha256: str
    bytes: int


class ParityReport(BaseModel):
    """Content of ``parity.json``."""

    model_config = ConfigDict(frozen=True)

    model: ModelFigures
    tokenizer: TokenizerParity
    template: TemplateParity
    text: ComparedText
    files: dict[str, FileFigures]
    """By quantisation."""
    thresholds: ParitySettings


def compare_exports(
    settings: ParitySettings,
    model: Path,
    files: Mapping[str, Path],
    text: Text,
    report: Callable[[str], None],
) -> ParityReport:
    """Compare exported files with their model.

    Args:
        files: by quantisation; there is one in F16.

    Raises:
        ExportError: tokenizer or template differ, a file does not run, or there is too little text.
    """
    tokenizer = compare_tokenizers(model, files["F16"])
    report(f"parity: {tokenizer.texts} of {tokenizer.texts} texts give the same tokens")
    template = compare_templates(model, files["F16"])
    report(f"parity: {template.server} of {template.conversations} conversations give the same prompt")
    length = min(WINDOW, int(read_config(model)["max_position_embeddings"]))
    vocabulary = Tokenizer.from_file(str(model / "tokenizer.json"))
    windows = make_windows(vocabulary, text, settings.tokens, length)
    perplexity, divergences = measure_divergence(model, files, windows, report)
    lines = "\n".join(",".join(map(str, window)) for window in windows)
    return ParityReport(
        model=ModelFigures(sha256=digest_file(model / WEIGHTS), perplexity=float(f"{perplexity:.4g}")),
        tokenizer=tokenizer,
        template=template,
        text=ComparedText(
            sha256=hashlib.sha256(lines.encode()).hexdigest(),
            positions=sum(len(window) - 1 for window in windows),
            windows=len(windows),
        ),
        files={
            kind: FileFigures(
                name=path.name,
                sha256=digest_file(path),
                bytes=path.stat().st_size,
                **divergences[kind].model_dump(),
            )
            for kind, path in files.items()
        },
        thresholds=settings,
    )


def check_thresholds(report: ParityReport) -> None:
    """Compare the figures of all files with the thresholds.

    Raises:
        ExportError: one is above its threshold, or is no number.
    """
    for kind, figures in report.files.items():
        bounds = get_bounds(report.thresholds, kind)
        for name, value, most in (
            ("mean divergence", figures.kl_mean, bounds.mean),
            ("99th percentile of the divergence", figures.kl_p99, bounds.p99),
            (
                "perplexity, as a ratio to the model's,",
                figures.perplexity_ratio,
                report.thresholds.perplexity_ratio,
            ),
        ):
            if math.isnan(value) or value > most:
                raise ExportError(f"The {name} of {figures.name} is {value:g}; at most {most:g} is allowed.")


def get_bounds(settings: ParitySettings, kind: str) -> KlBounds:
    """The bounds of a quantisation."""
    return {"F16": settings.f16, "Q8_0": settings.q8_0, "Q4_K_M": settings.q4_k_m}[kind]


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
