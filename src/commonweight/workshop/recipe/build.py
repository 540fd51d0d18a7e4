"""Building: runs the stages that are missing, writes their outputs aside, and renames them when they are whole."""

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.chain import fold, make_chain
from commonweight.lineage.digests import OBSERVED, RECORD, LineageError, digest_files, digest_json
from commonweight.lineage.provenance import EvaluationSet, require_material
from commonweight.lineage.record import (
    EVALUATION,
    PARITY,
    Input,
    Record,
    check_files,
    read_record,
    write_record,
)
from commonweight.workshop.recipe.plan import Only, compute_key, get_versions, list_evaluation_sets, order_stages
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import (
    EXPORTS,
    RecipeError,
    Report,
    Stage,
    StageInput,
    StageKind,
    StageResult,
    StageRun,
)
from commonweight.workshop.recipe.stages import KINDS

MIN_FREE_BYTES = 200 * 2**20
"""Free disk that a build wants before it begins a stage."""


class Builder:
    """Builds the stages of one recipe in one build folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: BuildFolder,
        root: Path,
        data_root: Path | None,
        date: str,
        kinds: Mapping[str, StageKind] | None = None,
    ) -> None:
        """Take what a build is made of.

        Args:
            kinds: what runs in place of a stage's own kind, by stage.
        """
        self.recipe = recipe
        self.folder = folder
        self.root = root
        self.data_root = data_root
        self.date = date
        self._kinds = kinds or {}
        self._built: dict[str, StageInput] = {}
        self._evaluation_sets: tuple[EvaluationSet, ...] = ()
        self._states: dict[str, dict[str, object]] = {}

    @property
    def stage_names(self) -> list[str]:
        """All stages of the recipe."""
        return list(self.recipe.stages)

    def get_output(self, stage: str) -> StageInput:
        """The output of a stage that was built, or was there."""
        return self._built[stage]

    def list_inputs(self, spec: Stage) -> tuple[StageInput, ...]:
        """The inputs of a stage whose inputs were built, or were there."""
        built = [(reference, self._built[reference.stage]) for reference in spec.list_references()]
        return tuple(StageInput(one.role, one.stage, found.folder, found.record) for one, found in built)

    def find_served_file(self) -> Path | None:
        """The GGUF file of the last export that was built, or was there: its smallest; None without an export."""
        exports = [item for item in self._built.values() if item.record.kind in EXPORTS]
        files = [exports[-1].folder / name for name in exports[-1].record.files] if exports else []
        models = [path for path in files if path.suffix == ".gguf"]
        return min(models, key=lambda path: path.stat().st_size, default=None)

    def build(self, report: Report, only: Only = None) -> list[str]:
        """Run what is missing, in order.

        Args:
            only: the stage to be built, or several, with what they depend on; None: all.

        Returns:
            The stages that ran.

        Raises:
            RecipeError, LineageError, or the error of a stage's room: one sentence; what was done before it stays.
        """
        # Read when torch's threads are made: those that spin for each other are slow beside anything else.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.folder.create()
        ran: list[str] = []
        with self.folder.lock():
            recipe = self.recipe.model_dump(mode="json", by_alias=True)
            self.folder.write_recipe(json.dumps(recipe, indent=1).encode() + b"\n")
            self._evaluation_sets = list_evaluation_sets(self.recipe, self.root, self.data_root)
            for name in order_stages(self.recipe, only):
                ran += [name] if self._build_stage(name, report) else []
            self._write_status()
        return ran

    def _build_stage(self, name: str, report: Report) -> bool:
        spec = self.recipe.stages[name]
        kind = self._kinds.get(name, KINDS[spec.kind])
        inputs = self.list_inputs(spec)
        records = {item.stage: item.record for item in inputs}
        key: str | None = None
        try:
            sources = kind.digest_sources(spec, self.root, self.data_root)
            key = compute_key(self.recipe, name, spec, kind, records, sources, self._evaluation_sets)
            record = self.folder.find_record(name, key)
            is_missing = record is None
            if record is None:
                self._write_status(name, key, "running")
                record = self._run(name, spec, kind, key, inputs, sources, report)
            else:
                record = self._adopt(name, key, record, inputs)
        except BaseException:
            self._write_status(name, key, "failed")
            raise
        self._write_status(name, key, "done", record)
        self._built[name] = StageInput("", name, self.folder.get_output(name, key), record)
        return is_missing

    def _run(
        self,
        name: str,
        spec: Stage,
        kind: StageKind,
        key: str,
        inputs: tuple[StageInput, ...],
        sources: Mapping[str, str],
        report: Report,
    ) -> Record:
        draft = self.folder.get_draft(name, key)
        draft.mkdir(exist_ok=True)
        if (record := self._find_whole_draft(draft)) is not None:
            self.folder.publish(name, key)
            return self._adopt(name, key, record, inputs)
        for file in (RECORD, OBSERVED):
            (draft / file).unlink(missing_ok=True)
        free = shutil.disk_usage(draft).free
        if free < MIN_FREE_BYTES:
            raise RecipeError(
                f"Only {free // 2**20} MiB are free in {self.folder.path}; "
                f"a stage wants {MIN_FREE_BYTES // 2**20} MiB."
            )
        for item in inputs:
            self._check_input(item)
        begun, clock = time.time(), time.monotonic()
        result = kind.run(self._make_run(name, spec, key, inputs, report))
        require_material(result.decisions)
        record = self._make_record(name, spec, kind, inputs, sources, result, draft)
        observed: dict[str, JsonValue] = {
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        }
        write_record(
            draft, record, observed | dict(result.observed or {}) | {"seconds": round(time.monotonic() - clock, 3)}
        )
        self.folder.publish(name, key)
        return record

    def _find_whole_draft(self, draft: Path) -> Record | None:
        """The record of a draft that a killed build had finished, and not renamed."""
        try:
            record = read_record(draft)
            check_files(draft, record)
        except LineageError:
            return None
        return record

    def _adopt(self, name: str, key: str, record: Record, inputs: tuple[StageInput, ...]) -> Record:
        """The record of an output that is there, with the records that its inputs have now."""
        current = self._update_inputs(record, inputs)
        if current != record:
            self.folder.replace_record(name, key, current)
        return current

    def _update_inputs(self, record: Record, inputs: tuple[StageInput, ...]) -> Record:
        outside = [item for item in record.inputs if item.record is None]
        entering = [item.record for item in inputs if item.role not in (EVALUATION, PARITY)]
        return record.model_copy(
            update={
                "inputs": (*_list_record_inputs(inputs), *outside),
                "licences": fold(entering, record.own_licences, "licences"),
                "generators": fold(entering, record.own_generators, "generators"),
            }
        )

    def _check_input(self, item: StageInput) -> None:
        """Compare an input with its record, before work is put into it."""
        try:
            check_files(item.folder, item.record)
        except LineageError as error:
            raise RecipeError(f"{error} Remove {item.folder}, and it is built again.") from error

    def _make_run(
        self, name: str, spec: Stage, key: str, inputs: tuple[StageInput, ...], report: Report
    ) -> StageRun:
        return StageRun(
            name=name,
            spec=spec,
            inputs=inputs,
            output=self.folder.get_draft(name, key),
            checkpoints=self.folder.get_checkpoints(name, key),
            root=self.root,
            data_root=self.data_root,
            policy=self.recipe.policy,
            evaluation_sets=self._evaluation_sets,
            lineage_head=lambda: (
                make_chain(
                    [item.record.identity for item in inputs if item.role == "model"], self.folder.read_records()
                ).head
            ),
            date=self.date,
            report=lambda line: report(f"{name}: {line}"),
        )

    def _make_record(
        self,
        name: str,
        spec: Stage,
        kind: StageKind,
        inputs: tuple[StageInput, ...],
        sources: Mapping[str, str],
        result: StageResult,
        draft: Path,
    ) -> Record:
        entering = [item.record for item in inputs if item.role not in (EVALUATION, PARITY)]
        outside = dict(sources) | dict(result.sources)
        if not all(math.isfinite(fact) for fact in result.facts.values() if isinstance(fact, float)):
            raise RecipeError(f"{name}: a figure of its output is not finite: {dict(result.facts)}.")
        return Record(
            kind=kind.name,
            name=name,
            inputs=(
                *_list_record_inputs(inputs),
                *(Input(role="source", name=origin, digest=digest) for origin, digest in sorted(outside.items())),
            ),
            files=digest_files(draft),
            licences=fold(entering, result.licences, "licences"),
            generators=fold(entering, result.generators, "generators"),
            own_licences=tuple(sorted(set(result.licences))),
            own_generators=tuple(sorted(set(result.generators))),
            parameters=spec.model_dump(mode="json"),
            stage_version=kind.version,
            facts=dict(result.facts),
            seed=spec.get_seed(),
            tools=get_versions(("commonweight", *kind.tools)),
            decisions=result.decisions,
        )

    def _write_status(
        self,
        name: str | None = None,
        key: str | None = None,
        state: str | None = None,
        record: Record | None = None,
    ) -> None:
        if name is not None:
            self._states[name] = {
                "key": key,
                "state": state,
                "record": record.identity if record else None,
                "content": record.content if record else None,
            }
        self.folder.write_status(
            {
                "recipe": self.recipe.name,
                "recipe_digest": digest_json(self.recipe.model_dump(mode="json", by_alias=True)),
                "stages": self._states,
            }
        )


def _list_record_inputs(inputs: tuple[StageInput, ...]) -> Iterator[Input]:
    for item in inputs:
        yield Input(role=item.role, name=item.stage, digest=item.record.content, record=item.record.identity)
