"""Verification: labels, quick looks, single files, and what it must not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rewriting import write_sums
from tiny_build import make_build

from commonweight.workshop.release import integrity, verify
from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.report import render, render_json
from commonweight.workshop.release.signature import find_key, read_public_part, sign_folder
from commonweight.workshop.release.verify import verify_release

pytestmark = pytest.mark.workshop
pytest_plugins = ["release_fixtures"]

FORBIDDEN = ("torch", "transformers", "trl", "inspect_ai", "commonweight.engines", "commonweight.llamacpp")


@pytest.mark.parametrize("quick", ["True", "False"])
def test_neither_engine_nor_torch_is_loaded(whole_release: Path, quick: str) -> None:
    program = (
        "import json, sys, pathlib\n"
        "from commonweight.workshop.release.verify import verify_release\n"
        f"report = verify_release(pathlib.Path(sys.argv[1]), quick={quick})\n"
        "print(json.dumps([report.passed, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, whole_release], check=True, capture_output=True, text=True
    )
    passed, modules = json.loads(done.stdout)
    assert passed
    assert not [name for name in modules if name.split(".")[0] in FORBIDDEN or name.startswith(FORBIDDEN)]


def test_every_label_is_there_and_rendered(whole_release: Path) -> None:
    report = verify_release(whole_release)
    assert {statement.label for statement in report.statements} == {"proved", "consistent", "declared"}
    text = render(report)
    assert text.startswith("tiny: passed\n")
    for statement in report.statements:
        assert statement.text in text
    assert json.loads(render_json(report))["passed"] is True


def test_training_elsewhere_is_declared(whole_release: Path, tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", imported=True)
    build.run_gate()
    build.run_release(tmp_path / "release")
    report = verify_release(tmp_path / "release")
    assert report.passed
    declared = [statement.text for statement in report.statements if statement.label == "declared"]
    assert [text for text in declared if text.startswith("Training of tiny-base: it ran elsewhere, and its")]
    card = (tmp_path / "release" / "README.md").read_text()
    assert "Trained elsewhere, the weights imported: tiny-base (pretrain). That it ran as recorded is" in card
    assert "elsewhere" not in (whole_release / "README.md").read_text()
    assert not [one for one in verify_release(whole_release).statements if "ran elsewhere" in one.text]


def test_a_quick_look_samples_large_files_and_says_so(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (integrity, verify):
        monkeypatch.setattr(module, "QUICK_BYTES", 100_000)
    report = verify_release(release, quick=True)
    assert report.passed
    assert any("tiny-F16.gguf" in sentence for sentence in report.left_out)
    assert any("quantised" in sentence for sentence in report.left_out)
    with (release / "tiny-F16.gguf").open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\x01" * 100)
    assert [statement.file for statement in verify_release(release, quick=True).failures] == ["tiny-F16.gguf"]


def test_the_library_agrees_on_signatures(release: Path, tmp_path: Path) -> None:
    from model_signing import verifying

    def verify_by_library() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=release / "signing-key.pub")
        config.verify(release, release / "model.sig")

    verify_by_library()
    (release / "NOTICE").write_text("changed")
    write_sums(release)
    with pytest.raises(ValueError, match="mismatch"):
        verify_by_library()
    assert {"model.sig", "NOTICE"} & {statement.file for statement in verify_release(release).failures}
    sign_folder(release, find_key("generate", tmp_path / "other"))
    with pytest.raises(ValueError, match="mismatch"):
        verify_by_library()


@pytest.mark.parametrize("with_trust", [False, True])
def test_an_unsigned_release_is_told_so_once(release: Path, tmp_path: Path, with_trust: bool) -> None:
    key = tmp_path / "key.pub"
    key.write_bytes((release / "signing-key.pub").read_bytes())
    (release / "model.sig").unlink()
    report = verify_release(release, key if with_trust else None)
    assert [statement.text for statement in report.failures] == [
        "The release is not signed: model.sig is missing."
    ]
    # What needs no signature is said nevertheless.
    assert any("are those of SHA256SUMS" in statement.text for statement in report.statements)
    (release / "signing-key.pub").unlink()
    assert [statement.text for statement in verify_release(release).failures] == [
        "signing-key.pub is missing.",
        "The release is not signed: model.sig is missing.",
    ]


def test_a_key_that_is_missing_is_told_once(release: Path) -> None:
    (release / "signing-key.pub").unlink()
    assert [statement.text for statement in verify_release(release).failures] == ["signing-key.pub is missing."]


def test_a_trusted_key_must_be_the_one(whole_release: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pub"
    other.write_bytes(read_public_part(find_key("generate", tmp_path / "keys")))
    report = verify_release(whole_release, other)
    assert {statement.file for statement in report.failures} == {"signing-key.pub", "model.sig"}
    other.write_text("no key")
    with pytest.raises(ReleaseError, match="not a public key"):
        verify_release(whole_release, other)
    with pytest.raises(ReleaseError, match="cannot be read"):
        verify_release(whole_release, tmp_path / "absent")


@pytest.mark.parametrize("name", ["tiny-Q8_0.gguf", "safetensors/model.safetensors"])
def test_a_file_alone_says_what_it_states(release: Path, name: str) -> None:
    report = verify_release(release / name)
    assert report.passed
    assert report.kind == "file"
    assert report.left_out and report.undetectable
    head = json.loads((release / "release.json").read_text())["weights"][name]["head"]
    assert (head or "no lineage head") in render(report)
    (release / name).write_bytes(b"GGUF")
    assert not verify_release(release / name).passed


def test_what_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot be read"):
        verify_release(tmp_path / "absent")
    report = verify_release(tmp_path)
    assert not report.passed
    assert any("SHA256SUMS" in statement.text for statement in report.failures)
    (tmp_path / "notes.txt").write_text("x")
    assert not verify_release(tmp_path / "notes.txt").passed
    with pytest.raises(ReleaseError, match="neither"):
        verify_release(Path("/dev/null"))
