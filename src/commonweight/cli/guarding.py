"""From options to a guard: the charter, its compiled heads, and what they can be used with here."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commonweight.catalog.gguf import Gguf
from commonweight.charter import DEFAULT as DEFAULT_CHARTER
from commonweight.charter import Charter, CharterError, parse
from commonweight.charter.principle import Mode
from commonweight.cli.terminal import UserError
from commonweight.guard import DEFAULT, Bundle, BundleError, Guard, Judge
from commonweight.guard.bundle import ModelIdentity
from commonweight.guard.compiling import CompileError, recompile
from commonweight.guard.encoder import EncoderMissingError, TextEncoder, load_encoder
from commonweight.guard.http_judge import HttpJudge

log = logging.getLogger(__name__)

SELF = "self"
"""As a judge's address: the served model, which is there only once it is loaded."""


@dataclass(frozen=True)
class Guarding:
    """What the options say. None means what ships with the package."""

    mode: Mode = "enforce"
    charter: Path | None = None
    bundle: Path | None = None
    waived: tuple[str, ...] = ()
    judge_url: str | None = None
    judge_model: str | None = None
    judge_key: str | None = None
    judge_seconds: float = 10.0


def model_named(gguf: Gguf) -> ModelIdentity:
    """A model as bundles name it: however its weights are rounded, its states mean the same."""
    metadata = gguf.metadata
    architecture = metadata.get("general.architecture", "")
    return ModelIdentity(
        name=metadata.get("general.name", gguf.path.stem),
        layers=int(metadata.get(f"{architecture}.block_count", 0)),
        width=int(metadata.get(f"{architecture}.embedding_length", 0)),
    )


def read_charter(path: Path | None) -> Charter:
    """The charter in a file; without one, the default.

    Raises:
        UserError: it is none.
    """
    try:
        return parse((DEFAULT_CHARTER if path is None else path).read_bytes())
    except CharterError as error:
        reasons = "".join(f"\n  {path}:{problem.line}: {problem.text}" for problem in error.problems)
        raise UserError(f"{path} is no charter:{reasons}") from error


def read_bundle(path: Path | None, key: bytes) -> Bundle:
    """A compiled charter that is to be trusted; without a path, the package's own.

    Raises:
        UserError: it cannot be used.
    """
    try:
        return Bundle.load(DEFAULT, None) if path is None else Bundle.load(path, key)
    except BundleError as error:
        raise UserError(str(error)) from error


def the_encoder(tell: Callable[[str], None] = log.warning) -> TextEncoder | None:
    """The text encoder, if its weights are there."""
    try:
        return load_encoder()
    except EncoderMissingError as error:
        tell(f"The guard works with less: {error}.")
        return None


def open_guard(
    guarding: Guarding,
    model: ModelIdentity,
    key: bytes,
    tell: Callable[[str], None] = log.info,
    *,
    shows_states: bool = True,
) -> Guard | None:
    """The guard that the options describe. ``tell`` gets a line on what it can see.

    ``shows_states``: the engine computes heads on the model's states; those elsewhere show none.

    Raises:
        UserError: the charter or its bundle cannot be used.
    """
    if guarding.mode == "off":
        return None
    charter = read_charter(guarding.charter)
    bundle = read_bundle(guarding.bundle, key)
    embedder = the_encoder()
    try:
        if bundle.manifest.charter != charter.sha256 and guarding.bundle is None:
            # The package's heads for what is the same in both, and the charter's own words for the rest.
            bundle = recompile(charter, bundle, embedder, {})
        is_its_model = bundle.manifest.model == model
        guard = Guard(
            charter,
            bundle,
            embedder,
            mode=guarding.mode,
            reads_states=is_its_model and shows_states,
            waived=guarding.waived,
            judge=_judge(guarding),
            judge_seconds=guarding.judge_seconds,
        )
    except (BundleError, CompileError) as error:
        raise UserError(str(error)) from error
    compiled_for = bundle.manifest.model
    if shows_states and not is_its_model and compiled_for is not None:
        log.warning(
            "the guard reads text only: its heads were compiled for %s and this is %s; "
            "`commonweight charter compile --model MODEL --texts FOLDER` makes others",
            compiled_for.name,
            model.name,
        )
    seen = " and ".join(["states"] * guard.reads_states + ["text"])
    tell(
        f"Charter {charter.id} {charter.version} ({charter.sha256[:12]}), {guarding.mode}d on {seen}."
        if guarding.mode == "enforce"
        else f"Charter {charter.id} {charter.version} ({charter.sha256[:12]}), in shadow on {seen}."
    )
    return guard


def _judge(guarding: Guarding) -> Judge | None:
    if guarding.judge_url in (None, SELF):
        return None
    if guarding.judge_model is None:
        raise UserError("--judge also needs --judge-model: the name that the judge's server knows it by")
    try:
        return HttpJudge(
            guarding.judge_url, guarding.judge_model, guarding.judge_key, seconds=guarding.judge_seconds
        )
    except ValueError as error:
        raise UserError(str(error)) from error
