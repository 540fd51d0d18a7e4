"""A bundle is what was compiled here, or nothing."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from commonweight.guard import DEFAULT, Bundle, BundleError, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.bundle import Manifest
from commonweight.guard.heads.recompile import recompile
from sample_charter import charter

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return recompile(charter(), Bundle.load(DEFAULT, None), load_encoder(), {})


def test_what_is_written_is_read(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle.save(path, KEY)
    found = Bundle.load(path, KEY)
    assert found.manifest == bundle.manifest
    assert found.digest == bundle.digest
    assert all(np.array_equal(found.tensors[name], tensor) for name, tensor in bundle.tensors.items())


def test_a_number_that_was_changed_is_found(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle.save(path, KEY)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="changed"):
        Bundle.load(path, KEY)


def test_a_threshold_that_was_changed_is_found(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle.save(path, KEY)
    changed = bundle.manifest.model_copy(update={"charter_version": "2"})
    metadata = {"manifest": changed.model_dump_json(), "digest": bundle.digest, "code": ""}
    save_file(load_file(path), path, metadata)
    with pytest.raises(BundleError, match="changed"):
        Bundle.load(path, KEY)


def test_somebody_elses_is_refused_until_it_is_trusted(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bundle.save(path, OTHER)
    with pytest.raises(BundleError, match="guard trust"):
        Bundle.load(path, KEY)
    Bundle.load(path, None).save(path, KEY)
    assert Bundle.load(path, KEY).digest == bundle.digest


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="no compiled charter"):
        Bundle.load(path, KEY)
    with pytest.raises(BundleError, match="no such file"):
        Bundle.load(tmp_path / "b.safetensors", KEY)


def test_numbers_that_are_none_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Bundle(bundle.manifest, {"x": np.array([np.nan], np.float32)}).save(path, KEY)
    with pytest.raises(BundleError, match="finite"):
        Bundle.load(path, KEY)


def test_a_bundle_of_another_charter_is_refused(bundle: Bundle) -> None:
    other = charter(severity="high")
    assert other.sha256 != charter().sha256
    with pytest.raises(BundleError, match="another charter"):
        Guard(other, bundle, load_encoder())


def test_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    manifest = Manifest(schema_="guard/9", charter="", charter_id="", charter_version="", model=None, encoder=None)
    Bundle(manifest, {}).save(path, KEY)
    with pytest.raises(BundleError, match="guard/9"):
        Bundle.load(path, KEY)


def test_the_default_bundle_is_for_the_default_charter() -> None:
    from commonweight import charter as charters

    bundle = Bundle.load(DEFAULT, None)
    assert bundle.manifest.charter == charters.parse(charters.DEFAULT.read_bytes()).sha256
    assert DEFAULT.stat().st_size < 4_000_000
    assert bundle.manifest.sources
    assert all(source.licence != "unknown" for source in bundle.manifest.sources)


def test_a_bundle_of_before_licences_were_recorded_is_still_read(bundle: Bundle, tmp_path: Path) -> None:
    old = bundle.manifest.model_copy(update={"licence": None})
    sources = tuple(one.model_copy(update={"generator": None}) for one in old.sources)
    before = Bundle(old.model_copy(update={"sources": sources}), bundle.tensors)
    assert "generator" not in before.manifest.model_dump_json()
    assert '"licence":null' not in before.manifest.model_dump_json()
    before.save(tmp_path / "a.safetensors", KEY)
    assert Bundle.load(tmp_path / "a.safetensors", KEY).digest == before.digest
