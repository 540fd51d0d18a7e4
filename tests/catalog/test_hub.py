"""Pulling weights with the real hub client, from a hub on the loopback interface."""

import hashlib
import os
import random
from pathlib import Path

import pytest
from fake_hub import COMMIT, LATER_COMMIT, REFERENCE, WEIGHTS, Client, Hub
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from commonweight.catalog.generation import find_generation_defaults

pytest_plugins = "fake_hub_fixtures"


def test_pulls_a_file(hub: Hub, client: Client) -> None:
    path = client.pull()
    assert path.name == "weights.gguf"
    assert path.read_bytes() == WEIGHTS


def test_pulls_a_file_in_a_folder_at_a_revision(hub: Hub, client: Client) -> None:
    hub.files = {"Q8_0/weights.gguf": WEIGHTS}
    path = client.pull(f"hf:org/repo@{LATER_COMMIT}/Q8_0/weights.gguf")
    assert path.parts[-3:] == (LATER_COMMIT, "Q8_0", "weights.gguf")
    assert path.read_bytes() == WEIGHTS


def test_a_small_file_without_a_stated_sha256_is_not_checked(hub: Hub, client: Client) -> None:
    hub.etags["weights.gguf"] = hashlib.sha1(WEIGHTS).hexdigest()
    assert client.pull().read_bytes() == WEIGHTS


def test_a_cached_file_is_used_offline(hub: Hub, client: Client) -> None:
    first = client.pull()
    hub.stop()
    assert client.pull() == first


def test_a_cached_file_is_used_without_asking(hub: Hub, client: Client) -> None:
    first = client.pull()
    hub.requests.clear()
    hub.main = LATER_COMMIT
    assert client.pull() == first
    assert not hub.requests


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, client: Client) -> None:
    content = random.Random(0).randbytes(2 * DOWNLOAD_CHUNK_SIZE)
    hub.files["weights.gguf"] = content
    hub.breaks = ["cut"]
    assert client.pull().read_bytes() == content
    whole, rest = (span for _, span in hub.downloads)
    assert whole is None
    assert rest == f"bytes={DOWNLOAD_CHUNK_SIZE}-"


def test_a_download_that_fails_leaves_nothing_and_can_be_run_again(hub: Hub, client: Client) -> None:
    hub.breaks = ["reset"]
    answer = client.fail(REFERENCE)
    assert answer["error"] == "PullError"
    assert "broke off" in answer["message"]
    assert not client.blobs()
    assert client.pull().read_bytes() == WEIGHTS


def test_corrupt_content_is_refused_and_removed(hub: Hub, client: Client) -> None:
    stated = hashlib.sha256(b"what was meant").hexdigest()
    hub.etags["weights.gguf"] = stated
    answer = client.fail(REFERENCE)
    assert answer["error"] == "CorruptDownloadError"
    assert stated in answer["message"]
    assert hashlib.sha256(WEIGHTS).hexdigest() in answer["message"]
    assert not client.blobs()
    # A link to nothing would make the hub's own tools skip the repository.
    assert not list(client.home.rglob("weights.gguf"))

    hub.files["weights.gguf"] = b"what was meant"
    assert client.pull().read_bytes() == b"what was meant"


def test_a_cached_file_that_went_bad_is_found_offline(hub: Hub, client: Client) -> None:
    path = client.pull()
    path.resolve().write_bytes(b"bad")
    hub.stop()
    assert client.fail(REFERENCE)["error"] == "CorruptDownloadError"
    assert not client.blobs()


def _share(blob: Path) -> Path:
    """Lay a blob out as after a download over xet: in a store for all repositories, named by another hash."""
    name = "c" * 64
    payload = blob.parents[2] / "blobs" / name[:2] / name
    payload.parent.mkdir(parents=True)
    blob.rename(payload)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    return payload


def test_a_shared_blob_is_checked_by_the_hash_that_the_hub_stated(hub: Hub, client: Client) -> None:
    path = client.pull()
    _share(path.resolve())
    assert client.pull() == path
    assert path.read_bytes() == WEIGHTS


def test_a_corrupt_shared_blob_is_removed_from_the_store(hub: Hub, client: Client) -> None:
    path = client.pull()
    payload = _share(path.resolve())
    payload.write_bytes(b"bad")
    assert client.fail(REFERENCE)["error"] == "CorruptDownloadError"
    assert not payload.exists()
    assert client.pull().read_bytes() == WEIGHTS


PARTS = [f"Q8_0/big-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


@pytest.mark.parametrize("asked", PARTS)
def test_any_part_pulls_all_and_gives_the_first(hub: Hub, client: Client, asked: str) -> None:
    hub.files = {name: name.encode() for name in PARTS}
    path = client.pull(f"hf:org/repo/{asked}")
    assert path.name == "big-00001-of-00003.gguf"
    assert [part.read_bytes() for part in sorted(path.parent.iterdir())] == [name.encode() for name in PARTS]


def test_parts_come_from_one_commit(hub: Hub, client: Client) -> None:
    hub.files = {PARTS[0]: b"first"}
    assert "00002" in client.fail(f"hf:org/repo/{PARTS[0]}")["message"]
    hub.files = dict.fromkeys(PARTS, b"later")
    hub.main = LATER_COMMIT
    path = client.pull(f"hf:org/repo/{PARTS[0]}")
    assert COMMIT in path.parts
    assert len(list(path.parent.iterdir())) == len(PARTS)


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("hf:org/repo/missing.gguf", "no such file"),
        ("hf:org/repo/none-00001-of-00000.gguf", "no such file"),
        ("hf:org/repo/weigths.gguf", "did you mean hf:org/repo/weights.gguf?"),
        ("hf:org/repo@missing/weights.gguf", "no such revision"),
        ("hf:org/missing/weights.gguf", "no such repository"),
        ("hf:org/gated/weights.gguf", "consent"),
        ("hf:org/forbidden/weights.gguf", "HTTP 403"),
        ("hf:org/unwell/weights.gguf", "HTTP 501"),
    ],
)
def test_a_refusal_is_one_sentence_for_a_person(hub: Hub, client: Client, reference: str, advice: str) -> None:
    hub.refusals |= {
        "org/gated": (403, "GatedRepo"),
        "org/forbidden": (403, ""),
        "org/unwell": (501, ""),
    }
    answer = client.fail(reference)
    assert answer["error"] == "PullError"
    assert answer["caused"]
    assert advice in answer["message"]
    assert reference.rpartition("/")[2] in answer["message"]
    assert "\n" not in answer["message"]


def test_a_hub_that_may_not_be_asked_is_a_sentence_too(client: Client) -> None:
    answer = client.fail(REFERENCE, HF_HUB_OFFLINE="1")
    assert answer["error"] == "PullError"
    assert "HF_HUB_OFFLINE" in answer["message"]


def test_a_disk_that_cannot_be_written_is_a_sentence_too(client: Client) -> None:
    (client.home / "hf").write_bytes(b"")
    answer = client.fail(REFERENCE)
    assert answer["error"] == "PullError"
    assert "check the disk" in answer["message"]


def test_cached_is_empty_without_a_cache(client: Client) -> None:
    assert client.cached() == []


def test_cached_lists_ggufs_in_order(hub: Hub, client: Client) -> None:
    hub.files = dict.fromkeys(("b.gguf", "a.gguf", "Q8_0/c.gguf", "README.md"), WEIGHTS)
    paths = [client.pull(f"hf:org/repo/{name}") for name in hub.files]
    assert client.cached() == sorted(str(path) for path in paths if path.suffix == ".gguf")


def test_cached_lists_a_split_model_once(hub: Hub, client: Client) -> None:
    hub.files = dict.fromkeys(("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"), WEIGHTS)
    path = client.pull("hf:org/repo/m-00001-of-00002.gguf")
    assert client.cached() == [str(path)]


def test_cached_survives_a_branch_that_moved_to_nothing_cached(hub: Hub, client: Client) -> None:
    path = client.pull()
    hub.main = LATER_COMMIT
    client.fail("hf:org/repo/missing.gguf")
    assert client.cached() == [str(path)]


def test_what_is_recommended_for_sampling_comes_along(hub: Hub, client: Client) -> None:
    hub.files["generation_config.json"] = b'{"temperature": 0.3}'
    path = client.pull()
    assert find_generation_defaults(path, {}).temperature == 0.3
