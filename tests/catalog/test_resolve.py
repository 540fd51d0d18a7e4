"""One grammar for naming a model, and an error that names the nearest possibilities for everything else."""

from pathlib import Path

import pytest
from fake_hub import COMMIT, LATER_COMMIT, WEIGHTS, Client, Hub
from huggingface_hub import constants, try_to_load_from_cache
from hypothesis import given
from hypothesis import strategies as st

from commonweight.catalog import resolve as module
from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.reference import (
    BadReferenceError,
    FileReference,
    FolderReference,
    HubFileReference,
    HubRepoReference,
    ModelNotFoundError,
    ModelReference,
    StarterReference,
    parse_reference,
)
from commonweight.catalog.resolve import resolve, resolve_local
from commonweight.catalog.starter import find_starter

pytest_plugins = "fake_hub_fixtures"

HUB_FORMS = "write hf:org/repo[@revision][:QUANT] or hf:org/repo/file.gguf"
ALL_FORMS = "write starter, the path of a GGUF file or of its folder, or hf:org/repo/file.gguf"
SPLIT = [f"BF16/m-BF16-0000{i}-of-00002.gguf" for i in (1, 2)]
MANY = ["mmproj-F16.gguf", "README.md", "m-Q2_K.gguf", "m-UD-Q4_K_XL.gguf", "m_q8_0.gguf", *SPLIT]


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder and a cache of the hub without models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def cache(name: str, repo: str = "org/repo", commit: str = COMMIT, branch: str | None = "main") -> Path:
    """A file in the cache of this process."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(WEIGHTS)
    if branch:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    return path


def advice(text: str | None) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(ModelNotFoundError) as refused:
        resolve(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (None, StarterReference()),
        ("starter", StarterReference()),
        ("./starter", FileReference(Path("starter"))),
        ("m.gguf", FileReference(Path("m.gguf"))),
        ("~nobody-of-that-name/m.gguf", FileReference(Path("~nobody-of-that-name/m.gguf"))),
        (".", FolderReference(Path())),
        ("hf:org/repo/m.gguf", HubFileReference("org/repo", "m.gguf")),
        ("hf:org/re.po/Q8_0/m--1.gguf", HubFileReference("org/re.po", "Q8_0/m--1.gguf")),
        ("hf:org/repo@v1.0/m.gguf", HubFileReference("org/repo", "m.gguf", "v1.0")),
        ("hf:org/repo", HubRepoReference("org/repo")),
        ("hf:org/repo:UD-Q4_K_XL", HubRepoReference("org/repo", "UD-Q4_K_XL")),
        ("hf:org/repo@v1.0", HubRepoReference("org/repo", None, "v1.0")),
        ("hf:org/repo@v1.0:q8_0", HubRepoReference("org/repo", "q8_0", "v1.0")),
    ],
)
def test_the_grammar(text: str | None, reference: ModelReference) -> None:
    assert parse_reference(text) == reference
    assert parse_reference(str(reference)) == reference


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_reference("~") == FolderReference(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ALL_FORMS),
        ("hf:", HUB_FORMS),
        ("hf:weights.gguf", HUB_FORMS),
        ("hf:org/repo/", HUB_FORMS),
        ("hf:org/repo:", HUB_FORMS),
        ("hf:org/repo:Q4/m.gguf", HUB_FORMS),
        ("hf:org/repo/folder/", HUB_FORMS),
        ("hf:org/repo@/weights.gguf", HUB_FORMS),
        ("hf:org/repo@../weights.gguf", HUB_FORMS),
        ("hf:org/re po/weights.gguf", HUB_FORMS),
        ("hf:org/re--po/weights.gguf", HUB_FORMS),
        ("hf:org/repo.git", HUB_FORMS),
        ("hf:org/repo/../weights.gguf", HUB_FORMS),
        ("hf:org/repo/a/./weights.gguf", HUB_FORMS),
        ("hf:org/repo/line\nbreak.gguf", HUB_FORMS),
        ("hf://org/repo/m.gguf", "did you mean hf:org/repo/m.gguf?"),
        ("https://huggingface.co/org/repo", "did you mean hf:org/repo?"),
        ("https://hf.co/org/repo:Q4_0", "did you mean hf:org/repo:Q4_0?"),
        ("https://huggingface.co/org/repo/tree/main", "did you mean hf:org/repo?"),
        ("https://huggingface.co/org/repo/blob/v2/Q8/m.gguf?x=1", "did you mean hf:org/repo@v2/Q8/m.gguf?"),
        ("https://example.com/m.gguf", ALL_FORMS),
    ],
)
def test_what_is_no_reference(text: str, words: str) -> None:
    with pytest.raises(BadReferenceError) as refused:
        parse_reference(text)
    assert str(refused.value) == f"{text!r} is no model reference; {words}"
    assert advice(text) == str(refused.value)


@given(
    st.one_of(
        st.text(),
        st.text("hf:/@.-~ ab1").map("hf:".__add__),
        st.from_regex(r"\A(?:\./|hf:)?[\w.-]+/[\w.-]+(?:@[\w.-]+)?(?:[:/][\w./-]+)?\Z"),
    )
)
def test_any_text_is_a_reference_that_says_the_same_again_or_an_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except BadReferenceError:
        return
    assert parse_reference(str(reference)) == reference
    if isinstance(reference, HubFileReference):
        # The hub's client has rules of its own for names, and takes all that the grammar does.
        assert try_to_load_from_cache(reference.repo, reference.name, revision=reference.revision) is None


def test_the_starter() -> None:
    assert resolve(None) == resolve("starter") == resolve_local("starter") == find_starter()


def test_a_starter_that_is_not_here_is_pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_starter", lambda: None)
    monkeypatch.setattr(module, "pull_starter", lambda: tmp_path / "pulled")
    assert resolve_local(None) is None
    assert resolve(None) == resolve("starter") == tmp_path / "pulled"


def test_a_file_and_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m-f16.gguf", "notes.txt"):
        (folder / name).touch()
    (folder / "other.gguf").mkdir()
    path = folder / "m-00001-of-00002.gguf"
    assert resolve(str(path)) == resolve_local(str(path)) == path
    assert resolve("folder") == resolve_local("folder") == Path("folder", path.name)


def test_a_folder_without_a_model_or_with_several(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert advice("folder") == "folder holds no GGUF model; it holds nothing"
    for name in ("mmproj.gguf", "m-00002-of-00002.gguf"):
        (folder / name).touch()
    assert advice("folder") == "folder holds no GGUF model; it holds m-00002-of-00002.gguf, mmproj.gguf"
    for name in ("b.gguf", "a.gguf"):
        (folder / name).touch()
    assert advice("folder") == "folder holds several models, a.gguf, b.gguf; name one, like folder/a.gguf"
    for number in range(20):
        (folder / f"m{number:02}.gguf").touch()
    assert "a.gguf, b.gguf, m00.gguf, m01.gguf, " in advice("folder")
    assert ", m09.gguf and 10 more; name one" in advice("folder")


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UnreadableModelError, match=r"cannot read .*: Permission denied"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "suggestions"),
    [
        ("qwen3-0.6b-q4_k_n.gguf", "; did you mean Qwen3-0.6B-Q4_K_M.gguf?"),
        ("./Qwen3-0.6B-Q4_K_M", "; did you mean Qwen3-0.6B-Q4_K_M.gguf?"),
        ("modles/tiny.gguf", "; did you mean models/tiny.gguf?"),
        ("models/tony.gguf", "; did you mean models/tiny.gguf?"),
        ("modles", "; did you mean models?"),
        ("Starter", "; did you mean starter?"),
        ("smollm2-135m-instruct.gguf", "; did you mean starter?"),
        ("org/repo", "; did you mean hf:org/repo?"),
        ("org/repo@v1:Q4_0", "; did you mean hf:org/repo@v1:Q4_0?"),
        ("org/repo/file.gguf", "; did you mean hf:org/repo/file.gguf?"),
        ("hf.co/org/repo", "; did you mean hf:org/repo?"),
        ("models/else", ""),  # in a folder that is there
        ("org/file.gguf", ""),
        ("Mistral-7B-Q4_0.gguf", "; did you mean hf:org/repo/mistral-7b-Q4_0.gguf?"),
        ("gemma-3-1b-it", f"; did you mean hf:org/gemma@{LATER_COMMIT}/gemma-3-1b-it-q4_0.gguf?"),
        ("legacy-model.gguf", "; did you mean {hub}/models--gpt2/snapshots/" + f"{COMMIT}/legacy-model-f16.gguf?"),
        ("nothing-like-it.gguf", ""),
        ("qwen3-14b", "; did you mean hf:Qwen/Qwen3-14B-GGUF:Q4_K_M?"),
        (
            "gpt-4o",
            "; models on this machine: `commonweight models list`; on the Hugging Face hub: hf:org/repo",
        ),
        ("\0", ""),
    ],
)
def test_a_path_that_does_not_exist(text: str, suggestions: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("Qwen3-0.6B-Q4_K_M.gguf", "models/tiny.gguf", "models/tony.txt"):
        (tmp_path / name).touch()
    cache("mistral-7b-Q4_0.gguf")
    cache("gemma-3-1b-it-q4_0.gguf", "org/gemma", LATER_COMMIT, branch=None)
    cache("legacy-model-f16.gguf", "gpt2")
    expected = suggestions.replace("{hub}", constants.HF_HUB_CACHE)
    assert advice(text) == f"cannot read {Path(text)}: No such file or directory{expected}"


def test_several_suggestions_the_nearest_first(tmp_path: Path) -> None:
    for name in ("tiny-model-1.gguf", "tiny-model-22.gguf"):
        (tmp_path / name).touch()
    cache("tiny-models.gguf")
    assert advice("tiny-model").endswith(
        "did you mean tiny-model-1.gguf or tiny-model-22.gguf or hf:org/repo/tiny-models.gguf?"
    )


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [
        ("Q2_K", "m-Q2_K.gguf"),
        ("q2_k", "m-Q2_K.gguf"),
        ("Q8_0", "m_q8_0.gguf"),
        ("bf16", SPLIT[0]),
        ("UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
        ("Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
    ],
)
def test_a_quantisation_of_a_repository(hub: Hub, client: Client, quantisation: str, name: str) -> None:
    hub.files = {file: file.encode() for file in MANY}
    path = client.pull(f"hf:org/repo:{quantisation}")
    assert path.read_text() == name
    if name in SPLIT:
        assert (path.parent / Path(SPLIT[1]).name).read_text() == SPLIT[1]
    assert client.call("resolve_local", f"hf:org/repo:{quantisation}") == {"result": str(path)}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["m-Q3_K.gguf", "mmproj-f16.gguf", "README.md"], "m-Q3_K.gguf"),
        (SPLIT, SPLIT[0]),
        (["m-Q2_K.gguf", "m-Q8_0.gguf", "m-q4_0.gguf", "m.q4_k_m.gguf"], "m.q4_k_m.gguf"),
        (["m-Q2_K.gguf", "m-Q8_0.gguf", "m-q4_0.gguf"], "m-q4_0.gguf"),
        (["m-Q2_K.gguf", "m-Q8_0.gguf", "m-Q6_K.gguf"], "m-Q8_0.gguf"),
        (["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"], "m-Q4_K_M.gguf"),
    ],
)
def test_a_repository_alone(hub: Hub, client: Client, names: list[str], chosen: str) -> None:
    hub.files = {file: file.encode() for file in names}
    assert client.pull("hf:org/repo").read_text() == chosen


@pytest.mark.parametrize(
    ("reference", "names", "words"),
    [
        (
            "hf:org/repo:Q4_K",
            MANY,
            "hf:org/repo:Q4_K does not exist; the repository has BF16, Q2_K, q8_0, UD-Q4_K_XL; "
            "did you mean hf:org/repo:Q2_K?",
        ),
        (
            "hf:org/repo",
            ["m-Q6_K.gguf", "m-Q2_K.gguf", "plain.gguf"],
            "hf:org/repo has several models, plain.gguf, Q2_K, Q6_K; name one, like hf:org/repo/plain.gguf",
        ),
        (
            f"hf:org/repo@{COMMIT}:Q2_K",
            ["a-Q2_K.gguf", "b-q2_k.gguf"],
            f"hf:org/repo@{COMMIT}:Q2_K fits several files, a-Q2_K.gguf, b-q2_k.gguf; "
            f"name one, like hf:org/repo@{COMMIT}/a-Q2_K.gguf",
        ),
        (
            "hf:org/repo",
            ["README.md", "mmproj-f16.gguf", "../m.gguf", "/m.gguf"],
            "hf:org/repo has no GGUF model; look for a repository whose name ends in -GGUF",
        ),
    ],
)
def test_a_repository_without_the_model(
    hub: Hub, client: Client, reference: str, names: list[str], words: str
) -> None:
    hub.files = dict.fromkeys(names, WEIGHTS)
    answer = client.fail(reference)
    assert (answer["error"], answer["message"]) == ("ModelNotFoundError", words)
    assert not hub.downloads


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("hf:org/missing:Q4_0", "no such repository"),
        ("hf:org/repo@missing", "no such revision"),
        ("hf:org/unwell", "HTTP 501"),
    ],
)
def test_a_listing_that_is_refused(hub: Hub, client: Client, reference: str, words: str) -> None:
    hub.refusals |= {"org/unwell": (501, "")}
    answer = client.fail(reference)
    assert answer["error"] == "PullError"
    assert answer["message"].startswith(f"cannot list {reference}: ")
    assert words in answer["message"]


@pytest.mark.parametrize("reference", ["hf:org/repo", "hf:org/repo:q4_0", f"hf:org/repo@{COMMIT}:Q4_0"])
def test_what_is_cached_is_used_offline(hub: Hub, client: Client, reference: str) -> None:
    hub.files = {"m-Q4_0.gguf": WEIGHTS, "m-Q8_0.gguf": WEIGHTS}
    path = client.pull(reference)
    hub.requests.clear()
    assert client.pull(reference, HF_HUB_OFFLINE="1") == path
    assert client.call("resolve_local", reference) == {"result": str(path)}
    assert not hub.requests
    hub.stop()
    assert client.pull(reference) == path


def test_a_branch_that_moved_on_downloads_nothing_again(hub: Hub, client: Client) -> None:
    hub.files = {"m-Q4_0.gguf": WEIGHTS}
    path = client.pull("hf:org/repo")
    hub.requests.clear()
    hub.main = LATER_COMMIT
    assert client.pull("hf:org/repo") == client.pull("hf:org/repo:Q4_0") == path
    assert ("GET", "/api/models/org/repo/revision/main", None) in hub.requests
    assert not hub.downloads


def test_offline_without_the_model(hub: Hub, client: Client) -> None:
    hub.files = {"m-Q5_0.gguf": WEIGHTS, "m-Q6_K.gguf": WEIGHTS}
    client.pull("hf:org/repo:Q5_0")
    answer = client.fail("hf:org/repo:Q6_K", HF_HUB_OFFLINE="1")
    assert answer["error"] == "PullError"
    assert answer["message"] == (
        "cannot list hf:org/repo:Q6_K: it is not in the local cache, and HF_HUB_OFFLINE is set; "
        "unset it and try again"
    )
    client.pull("hf:org/repo:Q6_K")
    assert "name one, like hf:org/repo:Q5_0" in client.fail("hf:org/repo", HF_HUB_OFFLINE="1")["message"]


def test_nothing_is_asked_of_the_hub_locally(hub: Hub, client: Client) -> None:
    hub.files = {"m-Q5_0.gguf": WEIGHTS, "m-Q6_K.gguf": WEIGHTS}
    for reference in ("hf:org/repo", "hf:org/repo:Q5_0", "hf:org/repo/m-Q5_0.gguf", "hf:org/repo@v1"):
        assert client.call("resolve_local", reference) == {"result": None}
    assert not hub.requests
    first = client.pull("hf:org/repo:Q5_0")
    client.pull("hf:org/repo:Q6_K")
    hub.requests.clear()
    assert client.call("resolve_local", "hf:org/repo/m-Q5_0.gguf") == {"result": str(first)}
    assert client.call("resolve_local", "hf:org/repo") == {"result": None}  # the hub may have a usual one
    assert not hub.requests
