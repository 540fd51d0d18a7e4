"""Release folders: what stands in them, where it comes from, and what stops them."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from rewriting import declare
from safetensors.numpy import load_file, save_file
from tiny_build import ANSWER, PROMPT, TinyBuild, finish, make_build, make_settings

from commonweight.lineage.digests import LineageError, digest_file
from commonweight.lineage.record import read_record
from commonweight.workshop.release.bom import check_bom
from commonweight.workshop.release.card import make_card
from commonweight.workshop.release.collect import Evaluation
from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.evidence import read_evidence
from commonweight.workshop.release.gate import evaluate_gate
from commonweight.workshop.release.layout import list_files
from commonweight.workshop.release.policy import read_policy
from commonweight.workshop.release.safetensors_head import copy_with_head, digest_without_head
from commonweight.workshop.release.signature import find_key, load_public_key
from commonweight.workshop.release.verify import verify_release
from commonweight.workshop.release.weights import read_header

pytestmark = pytest.mark.workshop
pytest_plugins = ["release_fixtures"]


def test_equal_inputs_give_equal_releases(whole_build: TinyBuild, whole_release: Path, tmp_path: Path) -> None:
    whole_build.run_release(tmp_path / "again")
    first, second = list_files(whole_release)[0], list_files(tmp_path / "again")[0]
    assert first.keys() == second.keys()
    for name in first:
        assert (
            name == "model.sig" or (whole_release / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        )
    assert {path.name for path in tmp_path.iterdir()} == {"again"}


def test_no_text_of_an_evaluation_is_in_a_release(whole_build: TinyBuild, whole_release: Path) -> None:
    logs = (whole_build.folder / "evaluation" / "logs" / "private.json").read_text()
    assert PROMPT in logs and ANSWER in logs
    for name in list_files(whole_release)[0]:
        data = (whole_release / name).read_bytes()
        for text in (PROMPT, ANSWER):
            for part in (text, text[:24], text[-24:]):
                assert part.encode() not in data, name
    assert not (whole_release / "safetensors" / "metrics.jsonl").exists()


@pytest.mark.parametrize("file", ["samples.jsonl", "results.json"])
def test_a_planted_text_stops_the_release(build: TinyBuild, file: str) -> None:
    folder = build.folder / "evaluation"
    if file == "samples.jsonl":
        line = json.loads((folder / file).read_text().splitlines()[0])
        (folder / file).write_text(json.dumps(line | {"prompt": PROMPT}) + "\n")
    else:
        content = json.loads((folder / file).read_text())
        content["figures"][0]["sampling"]["prompt"] = PROMPT
        (folder / file).write_text(json.dumps(content))
    record = read_record(folder)
    values = record.model_dump(exclude={"files", "version"})
    finish(folder, **values)
    with pytest.raises(ReleaseError, match="holds a text") as caught:
        build.run_gate()
    assert PROMPT not in str(caught.value)


def test_a_card_is_valid_for_the_hub_and_its_numbers_are_those_of_the_logs(
    whole_build: TinyBuild, whole_release: Path
) -> None:
    text = (whole_release / "README.md").read_text()
    card = yaml.safe_load(str(ModelCard(text).data))
    assert (card["license"], card["language"], card["pipeline_tag"]) == ("apache-2.0", ["en"], "text-generation")
    assert card["datasets"] == ["someone/tales"]
    source = json.loads((whole_build.folder / "evaluation" / "results.json").read_text())["figures"][0]
    (result,) = card["model-index"][0]["results"]
    assert result["dataset"]["revision"] == source["dataset"]["digest"]
    assert result["metrics"][0]["value"] == source["value"]
    figures = _read_table(text, "## Evaluation")
    assert [float(cell) for cell in (figures[0]["value"], figures[0]["n"], figures[0]["failed"])] == [
        source["value"],
        source["n"],
        source["errors"],
    ]
    assert figures[0]["measured"] == "tiny-Q8_0.gguf"
    low, _, high = figures[0]["interval"].partition(" to ")
    assert (float(low), float(high)) == (source["low"], source["high"])
    for row in _read_table(text, "## Files"):
        assert int(row["bytes"]) == (whole_release / row["file"]).stat().st_size
    decisions = read_record(whole_build.folder / "source").decisions
    rows = {(row["licence"], int(row["rows"])) for row in _read_table(text, "## Material")}
    assert rows == {(str(decision.licence), decision.rows) for decision in decisions}
    gate = json.loads((whole_release / "gate.json").read_text())
    values = {row["id"]: row["value"] for row in gate["rows"]}
    shown = {row["gate"]: row["value"] for row in _read_table(text, "| gate |")}
    assert shown == {name: str(value) for name, value in values.items()}


def test_a_base_that_was_trained_further_is_a_finetune(whole_release: Path) -> None:
    evidence = declare(read_evidence(whole_release), base_model="someone/something")
    card = make_card(evidence, evaluate_gate(read_policy("public"), evidence))
    data = yaml.safe_load(str(ModelCard(card.decode()).data))
    assert (data["base_model"], data["base_model_relation"]) == ("someone/something", "finetune")


def test_a_licence_that_the_hub_lacks_is_named(whole_release: Path) -> None:
    evidence = declare(read_evidence(whole_release), licence="LicenseRef-Public-Domain")
    card = make_card(evidence, evaluate_gate(read_policy("public"), evidence))
    data = yaml.safe_load(str(ModelCard(card.decode()).data))
    assert (data["license"], data["license_name"]) == ("other", "licenseref-public-domain")
    assert data["license_link"] == "LICENSE"


def test_weights_that_state_another_licence_are_refused(build: TinyBuild, tmp_path: Path) -> None:
    settings = make_settings(licence="LicenseRef-Public-Domain")
    build.run_gate(settings)
    with pytest.raises(ReleaseError, match=r"states the licence apache-2\.0"):
        build.run_release(tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_a_licence_that_names_its_holder_asks_for_one(tmp_path: Path) -> None:
    build, output = make_build(tmp_path / "build", licence="MIT"), tmp_path / "out"
    build.run_gate()
    with pytest.raises(ReleaseError, match="The text of MIT names who holds the copyright"):
        build.run_release(output)
    assert not output.exists()
    build.run_release(output, make_settings(licence="MIT", copyright="2026 Ada Example"))
    assert "Copyright (c) 2026 Ada Example" in (output / "LICENSE").read_text().splitlines()
    report = verify_release(output)
    assert report.passed
    texts = {statement.text: statement.label for statement in report.statements}
    assert texts["LICENSE is the known text of MIT, below the publisher's copyright line."] == "proved"


def test_the_bill_of_material_fits_its_schema(whole_release: Path) -> None:
    data = (whole_release / "bom.cdx.json").read_bytes()
    check_bom(data)
    content = json.loads(data)
    component = content["metadata"]["component"]
    assert component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.6"
    assert {item["type"] for item in content["components"]} == {"file", "data"}
    with pytest.raises(ReleaseError, match="does not fit"):
        check_bom(data.replace(b'"machine-learning-model"', b'"a-model"'))


def test_a_waived_row_is_printed_in_the_card(build: TinyBuild, tmp_path: Path) -> None:
    waiver = {"row": "f16-kl", "name": "A. Person", "reason": "measured elsewhere", "until": "2026-12-31"}
    policy = tmp_path / "strict.yaml"
    row = {"id": "f16-kl", "statement": "Equal", "kind": "parity", "path": "nothing", "operator": "<=", "bound": 0}
    policy.write_text(yaml.safe_dump({"name": "strict", "description": "Strict", "rows": [row]}))
    blocked = make_settings(policy=str(policy))
    assert build.run_gate(blocked).verdict == "blocked"
    with pytest.raises(ReleaseError, match=r"blocks: f16-kl \(not evaluated"):
        build.run_release(tmp_path / "out", blocked)
    assert not (tmp_path / "out").exists()
    waived = make_settings(policy=str(policy), waivers=[waiver])
    assert build.run_gate(waived).verdict == "waived"
    build.run_release(tmp_path / "out", waived)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Waived until 2026-12-31: f16-kl (not evaluated), by A. Person: measured elsewhere." in card
    report = verify_release(tmp_path / "out")
    assert report.passed
    assert any("publisher's own" in statement.text for statement in report.statements)
    assert any("A. Person" in statement.text for statement in report.statements if statement.label == "declared")


def test_a_gate_of_something_else_is_refused(build: TinyBuild, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="run it again"):
        build.run_release(tmp_path / "out", make_settings(description="Another."))


def _change_export(build: TinyBuild) -> None:
    with (build.export / "tiny-Q8_0.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")


def _remove_parity(build: TinyBuild) -> None:
    (build.export / "parity.json").unlink()


def _remove_model(build: TinyBuild) -> None:
    shutil.rmtree(build.model)


def _forget_model(build: TinyBuild) -> None:
    build.records.clear()


def _damage_f16(build: TinyBuild) -> None:
    (build.export / "tiny-F16.gguf").write_bytes(b"GGUF" + b"\xff" * 100)


def _change_scores(build: TinyBuild) -> None:
    (build.folder / "evaluation" / "samples.jsonl").write_text("")


@pytest.mark.parametrize(
    "damage", [_change_export, _remove_parity, _remove_model, _forget_model, _damage_f16, _change_scores]
)
def test_damaged_inputs_end_in_a_sentence(
    build: TinyBuild, tmp_path: Path, damage: Callable[[TinyBuild], None]
) -> None:
    damage(build)
    with pytest.raises((ReleaseError, LineageError)):
        build.run_gate()
        build.run_release(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [build.folder]


def test_an_evaluation_of_another_model_is_refused(build: TinyBuild, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build.folder / "evaluation", tmp_path / "other"))
    finish(folder, kind="evaluate", name="sums")
    other = TinyBuild(**{**vars(build), "evaluations": (Evaluation(folder),)})
    with pytest.raises(ReleaseError, match="not of the model"):
        other.run_gate()
    assert TinyBuild(**{**vars(build), "evaluations": (Evaluation(folder, "base"),)}).run_gate().verdict == "pass"


def test_what_lies_in_the_way_is_left_alone(build: TinyBuild, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    build.run_release(output)
    build.run_release(output)
    assert verify_release(output).passed
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(ReleaseError, match="not a release"):
        build.run_release(tmp_path / "other")
    assert (tmp_path / "other" / "file").read_text() == "x"
    (tmp_path / "link").symlink_to(output)
    with pytest.raises(ReleaseError, match="not a folder"):
        build.run_release(tmp_path / "link")


def test_a_release_without_safetensors(build: TinyBuild, tmp_path: Path) -> None:
    settings = make_settings(safetensors=False)
    build.run_gate(settings)
    build.run_release(tmp_path / "out", settings)
    assert not (tmp_path / "out" / "safetensors").exists()
    assert verify_release(tmp_path / "out").passed


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"note": 'a "quoted" \u00e4'}])
def test_a_head_is_added_to_safetensors_and_taken_away(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    plain, headed = tmp_path / "plain.safetensors", tmp_path / "headed.safetensors"
    save_file({"b": np.ones((3, 5), np.float32), "a": np.ones(7, np.float16)}, plain, metadata=metadata)
    copy_with_head(plain, headed, "ab" * 32)
    assert read_header(headed).head == "ab" * 32
    assert load_file(headed)["a"].tolist() == [1.0] * 7
    assert digest_without_head(headed) == digest_file(plain)
    with pytest.raises(ReleaseError, match="no lineage head can be added"):
        copy_with_head(headed, tmp_path / "twice.safetensors", "cd" * 32)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ReleaseError, match="not a sound"):
        digest_without_head(tmp_path / "bad.safetensors")


def test_keys_are_private(tmp_path: Path) -> None:
    key = find_key("generate", tmp_path / "keys")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    data = key.read_bytes()
    assert find_key("generate", tmp_path / "keys").read_bytes() == data
    assert find_key(str(key), tmp_path) == key
    key.chmod(0o644)
    with pytest.raises(ReleaseError, match="read by others"):
        find_key(str(key), tmp_path)
    (tmp_path / "none").write_text("no key")
    (tmp_path / "none").chmod(0o600)
    with pytest.raises(ReleaseError, match="not a private key"):
        find_key(str(tmp_path / "none"), tmp_path)
    with pytest.raises(ReleaseError, match="cannot be read"):
        find_key(str(tmp_path / "absent"), tmp_path)


def test_a_damaged_public_key_is_a_key_or_a_sentence(whole_release: Path) -> None:
    data = (whole_release / "signing-key.pub").read_bytes()
    refused = 0
    for place in range(len(data)):
        for bit in (1, 4, 32, 128):
            changed = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            try:
                load_public_key(changed, "key")
            except ReleaseError:
                refused += 1
    assert refused > len(data)


def _read_table(text: str, after: str) -> list[dict[str, str]]:
    lines = text[text.index(after) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\\", "") for cell in line.strip("|").split("|")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
