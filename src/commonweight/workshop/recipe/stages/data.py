"""Stages of rows: sources, evaluation sets, filters and mixes."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from commonweight.lineage.licence_texts import LicenceText
from commonweight.lineage.provenance import (
    Content,
    Material,
    check_material,
    list_generator_licences,
    require_material,
)
from commonweight.lineage.record import Decision
from commonweight.workshop.data.locations import HubPath, WebFile
from commonweight.workshop.data.settings import FilterSettings, MixSettings, SourceSettings
from commonweight.workshop.recipe.forecast import Forecast, Volume, count_lengths, mix_volumes
from commonweight.workshop.recipe.stage_kind import (
    EVALUATION_SETS,
    ROWS,
    RecipeError,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    make_kind,
    select_settings,
)
from commonweight.workshop.settings import Several

RAW = "raw"
"""Folder of an evaluation set's output with its file as it is."""
_MAX_TEXT_BYTES = 2**20
_MAX_READ_BYTES = 64 * 2**20
"""Of a source whose rows are counted for a plan."""
_CONTENTS: Mapping[str, Content] = {
    "text": "text",
    "messages": "answers",
    "preference": "answers",
    "prompt": "prompts",
}


class SourceStage(Stage, SourceSettings):
    """Rows from a file, a folder, a package, the hub or an address."""

    kind: Literal["source"]
    licence_texts: Several[str] = Field(default=(), max_length=20)
    """Files that come with it and speak of its licence, written like ``from``: paths or ``package:NAME/path``."""


class EvaluationSetStage(Stage, SourceSettings):
    """A set that is measured on, taken as it is; no row of it may train anything."""

    kind: Literal["evaluation_set"]


class FilterStage(Stage, FilterSettings):
    """Rows without duplicates, without rows of evaluation sets, within bounds of length."""

    kind: Literal["filter"]
    inputs: Several[StageName] = Field(min_length=1)
    evaluation_sets: Several[StageName] = ()

    def list_references(self) -> tuple[Reference, ...]:
        return (
            *(Reference("data", name, ("inputs", index), ROWS) for index, name in enumerate(self.inputs)),
            *(
                Reference("evaluation", name, ("evaluation_sets", index), EVALUATION_SETS)
                for index, name in enumerate(self.evaluation_sets)
            ),
        )


class MixStage(Stage, MixSettings):
    """Rows of several stages by weight, with a share kept for validation."""

    kind: Literal["mix"]

    def list_references(self) -> tuple[Reference, ...]:
        return tuple(Reference("data", name, ("weights", name), ROWS) for name in self.weights)


def _run_source(run: StageRun) -> StageResult:
    from commonweight.workshop.data.source_stage import run_source

    assert isinstance(run.spec, SourceStage)
    observed = run_source(
        select_settings(SourceSettings, run.spec), run.root, run.data_root, run.output, run.report
    )
    texts = tuple(_read_licence_text(location, run) for location in run.spec.licence_texts)
    decisions = check_material(read_materials(run.output, texts), run.policy, run.evaluation_sets)
    require_material(decisions)
    return _describe_rows(decisions, observed)


def _run_evaluation_set(run: StageRun) -> StageResult:
    from commonweight.workshop.data.source_stage import run_source
    from commonweight.workshop.data.sources import locate_source

    assert isinstance(run.spec, EvaluationSetStage)
    settings = select_settings(SourceSettings, run.spec).model_copy(update={"evaluation": True})
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
        observed=run_filter(select_settings(FilterSettings, run.spec), inputs, sets, run.output, run.report)
    )


def _run_mix(run: StageRun) -> StageResult:
    from commonweight.workshop.data.mix_stage import run_mix

    folders = run.list_folders("data")
    return StageResult(observed=run_mix(select_settings(MixSettings, run.spec), folders, run.output, run.report))


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


def read_materials(output: Path, texts: tuple[LicenceText, ...] = ()) -> list[Material]:
    """What the licence gate decides on of the rows of a dataset folder."""
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
    settings = select_settings(SourceSettings, spec)
    # The gate reads them: other texts, another decision.
    listed = spec.licence_texts if isinstance(spec, SourceStage) else ()
    texts = {text: digest_file(find_text(text, root)) for text in listed}
    location = settings.parsed_location
    if isinstance(location, HubPath | WebFile) and data_root is None:
        return {settings.name: settings.sha256 or digest_json(settings.location)} | texts
    return {settings.name: locate_source(settings, root, data_root, root, lambda _line: None).sha256} | texts


def _foresee_source(spec: Stage, forecast: Forecast) -> Volume | None:
    """The rows of a source that lies here and is no table: they are read."""
    from collections import Counter

    from commonweight.workshop.data.sources import locate_source, read_source

    assert isinstance(spec, SourceStage | EvaluationSetStage)
    settings = select_settings(SourceSettings, spec)
    location = settings.parsed_location
    if isinstance(location, HubPath | WebFile) and forecast.data_root is None:
        return None
    source = locate_source(settings, forecast.root, forecast.data_root, forecast.root, lambda _line: None)
    size = sum(file.path.stat().st_size for file in source.files)
    if size > _MAX_READ_BYTES or any(file.name.lower().endswith(".parquet") for file in source.files):
        return None
    return count_lengths(row.content.count_characters() for row in read_source(settings, source, Counter()))


def _foresee_filter(spec: Stage, forecast: Forecast) -> Volume | None:
    """At most: duplicates and what is contaminated count."""
    assert isinstance(spec, FilterStage)
    whole = forecast.add_volumes(spec.inputs)
    if whole is None or not whole.lengths:
        return whole
    return count_lengths(one for one in whole.lengths if spec.min_characters <= one <= spec.max_characters)


def _foresee_mix(spec: Stage, forecast: Forecast) -> Volume | None:
    assert isinstance(spec, MixStage)
    found = {name: volume for name in spec.weights if (volume := forecast.get_volume(name)) is not None}
    if len(found) < len(spec.weights):
        return None
    return mix_volumes(select_settings(MixSettings, spec), found)


KINDS = (
    make_kind(
        "source",
        2,
        SourceStage,
        _run_source,
        "data.source_stage",
        ("pyarrow",),
        digest_sources=_digest_source,
        foresee=_foresee_source,
    ),
    make_kind(
        "evaluation_set",
        2,
        EvaluationSetStage,
        _run_evaluation_set,
        "data.source_stage",
        ("pyarrow",),
        digest_sources=_digest_source,
        foresee=_foresee_source,
    ),
    make_kind(
        "filter",
        2,
        FilterStage,
        _run_filter,
        "data.filter_stage",
        ("pyarrow", "numpy"),
        foresee=_foresee_filter,
    ),
    make_kind("mix", 2, MixStage, _run_mix, "data.mix_stage", ("pyarrow",), foresee=_foresee_mix),
)
"""The kinds of this room."""
