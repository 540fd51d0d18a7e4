"""Opening a guard: its charter, compiled heads, text encoder and judge."""

import logging
from collections.abc import Callable
from pathlib import Path

from commonweight.catalog.gguf import Gguf
from commonweight.guard import DEFAULT, Bundle, BundleError, Guard, Judge
from commonweight.guard.encoders.encoder import EncoderMissingError, TextEncoder, load_encoder
from commonweight.guard.encoders.multilingual import MultilingualEncoder, load_multilingual_encoder
from commonweight.guard.heads.bundle import ModelIdentity
from commonweight.guard.heads.noise import ScoreEnd
from commonweight.guard.heads.reader import MULTILINGUAL
from commonweight.guard.heads.recompile import CompileError, covers, recompile
from commonweight.guard.judge.http_judge import HttpJudge
from commonweight.guard.screening.coverage import find_gaps
from commonweight.runtime.charter import read_charter
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import SELF, GuardSettings

log = logging.getLogger(__name__)


def identify_model(gguf: Gguf) -> ModelIdentity:
    """Identify a model as bundles do; quantisations of one model share an identity."""
    metadata = gguf.metadata
    architecture = metadata.get("general.architecture", "")
    return ModelIdentity(
        name=metadata.get("general.name", gguf.path.stem),
        layers=int(metadata.get(f"{architecture}.block_count", 0)),
        width=int(metadata.get(f"{architecture}.embedding_length", 0)),
    )


def read_bundle(path: Path | None, key: bytes) -> Bundle:
    """Read a compiled charter, and check that it can be trusted; without a path, the package's own.

    Raises:
        UserError: it cannot be used.
    """
    try:
        return Bundle.load(DEFAULT, None) if path is None else Bundle.load(path, key)
    except BundleError as error:
        raise UserError(str(error)) from error


def find_encoder(report: Callable[[str], None] = log.warning) -> TextEncoder | None:
    """Find the text encoder; None if its weights are not installed."""
    try:
        return load_encoder()
    except EncoderMissingError as error:
        report(f"The guard works with less: {error}.")
        return None


def find_multilingual(report: Callable[[str], None] = log.warning) -> MultilingualEncoder | None:
    """Find the encoder for other languages; None if its weights are not installed."""
    try:
        return load_multilingual_encoder()
    except EncoderMissingError as error:
        report(f"The guard reads English only: {error}.")
        return None


def open_guard(
    settings: GuardSettings,
    model: ModelIdentity,
    key: bytes,
    report: Callable[[str], None] = log.info,
    *,
    shows_states: bool = True,
    self_judge: Judge | None = None,
    score_end: ScoreEnd | None = None,
) -> Guard | None:
    """Open the guard that settings describe; None for the mode ``off``. ``report`` gets a line on its heads.

    Args:
        shows_states: the engine computes heads on the model's states; remote ones show none.
        self_judge: the served model as a judge, for settings that ask for it.
        score_end: scores ends of texts by the served model.

    Raises:
        UserError: the charter or its bundle cannot be used.
    """
    if settings.mode == "off":
        return None
    charter = read_charter(settings.charter)
    bundle = read_bundle(settings.bundle, key)
    encoder = find_encoder()
    try:
        if bundle.manifest.charter != charter.sha256 and (settings.bundle is None or covers(charter, bundle)):
            # The heads for what is the same in both, and with the package's the charter's own words for the rest.
            bundle = recompile(charter, bundle, encoder, {})
        is_its_model = bundle.manifest.model == model
        guard = Guard(
            charter,
            bundle,
            encoder,
            find_multilingual() if MULTILINGUAL in bundle.manifest.encoders else None,
            mode=settings.mode,
            strictness=settings.strictness,
            reads_states=is_its_model and shows_states,
            waived=settings.waived,
            judge=self_judge if settings.judge_url == SELF else _open_http_judge(settings),
            judge_seconds=settings.judge_timeout,
            key=key,
            score_end=score_end,
        )
    except (BundleError, CompileError) as error:
        raise UserError(str(error)) from error
    _check_coverage(guard)
    compiled_for = bundle.manifest.model
    if shows_states and not is_its_model and compiled_for is not None:
        log.warning(
            "the guard reads text only: its heads were compiled for %s and this is %s; "
            "`commonweight charter compile --model MODEL --texts FOLDER` makes others",
            compiled_for.name,
            model.name,
        )
    seen = " and ".join(["states"] * guard.reads_states + ["text"])
    mode = "enforced" if settings.mode == "enforce" else "in shadow"
    reach = _describe_reach(guard)
    report(f"Charter {charter.id} {charter.version} ({charter.sha256[:12]}), {mode} on {seen}{reach}.")
    return guard


def _check_coverage(guard: Guard) -> None:
    """Refuse a guard that cannot hold what its charter enforces; warn of one that holds it with fewer heads.

    Raises:
        UserError: an enforced principle has no head at a place.
    """
    gaps = list(find_gaps(guard))
    if without := [gap for gap in gaps if not gap.heads]:
        listed = "; ".join(
            f"{principle}: {', '.join(gap.place for gap in without if gap.principle == principle)}"
            for principle in dict.fromkeys(gap.principle for gap in without)
        )
        need = "" if guard.scorer.has_encoder else "install the text encoder (`commonweight pull starter`), "
        raise UserError(
            f"the guard has no head for what the charter enforces ({listed}): {need}compile the charter with "
            "labelled texts, or take the places out of applies_to"
        )
    fewer = [gap for gap in gaps if gap.heads]
    if fewer:
        log.warning(
            "without the text encoder %d principles are read with fewer heads: in %s",
            len({gap.principle for gap in fewer}),
            ", ".join(dict.fromkeys(f"{gap.place} by {' and '.join(gap.heads)}" for gap in fewer)),
        )


def _describe_reach(guard: Guard) -> str:
    """Describe the operating point and the languages that heads read, for bundles that tell."""
    languages = guard.scorer.languages
    if not languages:
        return ""
    others = {"allow": "passes unread", "judge": "goes to the judge", "refuse": "is refused"}[
        guard.charter.unreadable
    ]
    return f"; strictness {guard.strictness}; reads {', '.join(languages)}, what else {others}"


def _open_http_judge(settings: GuardSettings) -> Judge | None:
    if settings.judge_url is None:
        return None
    if settings.judge_model is None:
        raise UserError("--judge also needs --judge-model: the name that the judge's server knows it by")
    try:
        return HttpJudge(
            settings.judge_url, settings.judge_model, settings.judge_key, seconds=settings.judge_timeout
        )
    except ValueError as error:
        raise UserError(str(error)) from error
