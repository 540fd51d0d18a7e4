"""Signatures of thinking: they give back the reasoning, and nothing that we did not write."""

import base64
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.signing import BrokenKeyError, Purpose, Signer, TamperedError, compute_mac, load_key
from commonweight.signing import signer as module

SIGNER = Signer(bytes(range(32)), Purpose.THINKING_SIGNATURE)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_the_reasoning_comes_back(reasoning: str) -> None:
    signature = SIGNER.sign(reasoning)
    assert SIGNER.read(signature) == reasoning
    assert base64.b64encode(base64.b64decode(signature, validate=True)).decode() == signature


@given(TEXTS, st.data())
def test_no_flipped_bit_yields_text(reasoning: str, data: st.DataObject) -> None:
    signature = SIGNER.sign(reasoning)
    place = data.draw(st.integers(0, len(signature) - 1))
    flipped = chr(ord(signature[place]) ^ 1 << data.draw(st.integers(0, 7)))
    changed = signature[:place] + flipped + signature[place + 1 :]
    if place < len("commonweight/v1/"):
        assert SIGNER.read(changed) is None
    else:
        with pytest.raises(TamperedError):
            SIGNER.read(changed)


@pytest.mark.parametrize("reasoning", ["", "a", "ab", "abc", "long " * 1000], ids=len)
def test_every_bit_of_some(reasoning: str) -> None:
    signature = SIGNER.sign(reasoning)
    for place in range(len("commonweight/v1/"), len(signature)):
        for bit in range(8):
            flipped = chr(ord(signature[place]) ^ 1 << bit)
            with pytest.raises(TamperedError):
                SIGNER.read(signature[:place] + flipped + signature[place + 1 :])


@given(st.text())
def test_foreign_signatures_say_nothing(signature: str) -> None:
    assert SIGNER.read(signature) is None


@given(st.text())
def test_nothing_after_our_prefix_yields_text_but_what_we_wrote(rest: str) -> None:
    with pytest.raises(TamperedError):
        SIGNER.read("commonweight/v1/" + rest)


def test_another_version_is_foreign_and_another_key_is_not() -> None:
    signature = SIGNER.sign("because")
    assert SIGNER.read(signature.replace("/v1/", "/v2/")) is None
    with pytest.raises(TamperedError):
        Signer(bytes(32), Purpose.THINKING_SIGNATURE).read(signature)


@pytest.mark.parametrize("cut", [1, 4, 20])
def test_a_signature_cut_or_lengthened_is_refused(cut: int) -> None:
    signature = SIGNER.sign("because")
    with pytest.raises(TamperedError):
        SIGNER.read(signature[:-cut])
    with pytest.raises(TamperedError):
        SIGNER.read(signature + "A" * cut)


def test_signatures_are_short_and_never_show_the_reasoning() -> None:
    reasoning = "The user wants the number again. " * 100
    signature = SIGNER.sign(reasoning)
    assert len(signature) < len(reasoning) // 10
    assert "number" not in signature


def test_unpacking_is_bounded_even_when_authentic(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = SIGNER.sign("0" * 2000)
    monkeypatch.setattr(module, "_MAX_TEXT_BYTES", 999)
    with pytest.raises(TamperedError, match="more than"):
        SIGNER.read(bomb)
    with pytest.raises(ValueError, match="too long"):
        SIGNER.sign("0" * 1000)
    assert SIGNER.read(SIGNER.sign("0" * 999)) == "0" * 999


def test_a_bomb_without_our_code_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(zlib, "decompressobj")
    bomb = bytes(16) + zlib.compress(bytes(10**7))
    with pytest.raises(TamperedError, match="authentic"):
        SIGNER.read("commonweight/v1/" + base64.b64encode(bomb).decode())


def test_a_signature_for_another_purpose_is_refused() -> None:
    with pytest.raises(TamperedError):
        Signer(bytes(range(32)), Purpose.SESSION).read(SIGNER.sign("because"))


def test_codes_of_one_key_differ_by_purpose_and_never_change() -> None:
    codes = {purpose: compute_mac(bytes(range(32)), purpose, b"data").hex()[:16] for purpose in Purpose}
    # Signatures, trusted bundles and caches of installations rest on these values.
    assert codes == {
        Purpose.THINKING_SIGNATURE: "1baaff2296ea5316",
        Purpose.EVALUATION: "e02005f11ae8b357",
        Purpose.GUARD_TEXT: "892b261880b9a070",
        Purpose.GUARD_BUNDLE: "5f71f074e0cf7991",
        Purpose.CACHE_SALT: "ae85bee7a0d9944a",
        Purpose.SESSION: "95a95ec19d9cc332",
    }


def test_a_key_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="32"):
        Signer(b"short", Purpose.THINKING_SIGNATURE)


def test_the_key_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    key = load_key(folder)
    assert len(key) == 32
    assert load_key(folder) == key
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(tmp_path / "other") != key


def _load_when_all_are_ready(folder: Path, barrier: Barrier) -> bytes:
    barrier.wait()
    return load_key(folder)


def test_threads_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    barrier = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(_load_when_all_are_ready, tmp_path, barrier) for _ in range(8)]
        keys = {load.result() for load in loads}
    assert len(keys) == 1
    assert [file.read_bytes() for file in tmp_path.iterdir()] == list(keys)


def test_processes_share_it_too(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        keys = set(pool.map(load_key, [tmp_path] * 8))
    assert keys == {load_key(tmp_path)}


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)], ids=len)
def test_a_broken_file_is_an_error_that_names_it_and_leaves_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret.key"
    file.write_bytes(content)
    with pytest.raises(BrokenKeyError, match=r"secret\.key should hold 32 bytes"):
        load_key(tmp_path)
    assert file.read_bytes() == content
