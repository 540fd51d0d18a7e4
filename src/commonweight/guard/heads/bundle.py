"""A compiled charter: heads, thresholds and where they come from, in one file.

The file is safetensors (https://github.com/huggingface/safetensors): numbers, and JSON in its header. Reading it
runs nothing. Two threats, two answers:

- *a changed file*: its digest is computed over the manifest and every tensor, and has to be the one written in it;
- *somebody else's file*, whose heads might let anything pass: it carries a code made with this installation's key
  (HMAC-SHA256), or is the one that ships with the package. ``commonweight guard trust`` signs a file that was
  brought from elsewhere, once a person has decided to.

Whoever can write the key's file or the package can forge both; so can whoever runs as the server.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from commonweight.signing import Purpose, compute_mac

DEFAULT = Path(str(files("commonweight.guard.heads") / "starter.safetensors"))
"""Compiled from the default charter for the starter model."""


FORMAT = "guard/2"
Strictness = Literal["low", "standard", "high"]
"""The operating point: how many ordinary texts may be refused, see ``workshop.heads``."""


class BundleError(Exception):
    """The bundle cannot be used; the message says why, in one sentence."""


class _BundlePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelIdentity(_BundlePart):
    """The model whose states the heads read."""

    name: str
    layers: int
    width: int


class Ensemble(_BundlePart):
    """Weights that combine the logits of several representations into one, with its thresholds."""

    bias: float = 0.0
    low: float
    """Logit from which a second look is worth its cost."""
    high: float
    """Logit from which the screen refuses by itself, at the strictness ``standard``."""
    weights: Mapping[str, float] = {}
    """By part: ``states`` and ``text``, or encoders and ``grams``. None: there is one, whose logit it is."""
    slope: float = 0.0
    """Logit by which the highest of n windows is lowered, for each unit of log(n)."""
    points: Mapping[Strictness, float] = {}
    """``high`` by strictness."""
    relief: float = 0.0
    """Logit by which ``high`` is lowered where the text manipulates."""

    def at(self, strictness: Strictness, *, manipulated: bool = False, noisy: bool = False) -> "Ensemble":
        """The ensemble with the thresholds of one strictness.

        ``noisy``: the text ends in noise, which takes the thresholds of ``high``, and the relief.
        """
        high = self.points.get("high" if noisy else strictness, self.high) - self.relief * (manipulated or noisy)
        return self.model_copy(update={"high": high, "low": min(self.low, high)})


class Calibration(_BundlePart):
    """How often harmless texts reach a threshold, with its 95 % interval (Wilson)."""

    texts: int
    refused: int
    lower: float
    upper: float


class ProseHead(_BundlePart):
    """Head of a principle without data, made of its words: the tensor ``prose.ID``."""

    restricts: int
    """0: the tensor is the weights of a linear head. Otherwise vectors, of which so many are what is restricted
    and the rest what is permitted: the score is the similarity to the former, less that to the latter."""
    low: float
    high: float
    scale: float
    """Difference of scores that changes the odds by a factor of e."""
    words: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Hash of the words and examples that it was made of; None: it was made before this was recorded."""


class BundleSource(_BundlePart):
    """Data that heads were trained on."""

    name: str
    licence: str
    rows: int
    sha256: str
    """Of the file."""
    generator: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """The models that wrote its prompts, or its answers where it has any; None: people did."""
    content: Literal["prompts", "answers"] = Field(default="prompts", exclude_if=lambda value: value == "prompts")


class Manifest(_BundlePart):
    """Contents of a bundle, except its tensors."""

    schema_: str = FORMAT
    charter: str
    """SHA-256 of the charter's file."""
    charter_id: str
    charter_version: str
    model: ModelIdentity | None
    """None: heads on text alone."""
    encoder: str | None
    probe_layers: tuple[int, ...] = ()
    principles: tuple[str, ...] = ()
    """Those that the data's heads tell apart, in the order of the columns."""
    words: Mapping[str, str] = {}
    """Hashes of what the principles said when their heads were made."""
    prose: Mapping[str, ProseHead] = {}
    input: Mapping[str, Ensemble] = {}
    """By the parts that there are, as ``states+minilm+use+grams``."""
    output: Mapping[str, Ensemble] = {}
    """By what there is: ``states`` or ``grams``."""
    injection: Ensemble | None = None
    injection_principle: str | None = None
    """Who it speaks for."""
    calibration: Mapping[str, Calibration] = {}
    """By ensemble, and by principle."""
    sources: tuple[BundleSource, ...] = ()
    """Of training and calibration."""
    encoders: tuple[str, ...] = ()
    """Those with heads, by the names in ``input``."""
    manipulation: Mapping[str, Ensemble] = {}
    """Of heads on text that manipulates the model, by the parts that there are."""
    calm: Mapping[str, float] = {}
    """By the parts on text that were asked: the logit below which no further one is."""
    states_slope: float = 0.0
    """As an ensemble's slope, for windows of states."""
    languages: tuple[str, ...] = ()
    """That the heads can read, as far as languages are told apart."""
    licence: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of the bundle's content, as its sources' licences demand; None: it was made before this was recorded."""


@dataclass(frozen=True)
class Bundle:
    """A manifest with its tensors."""

    manifest: Manifest
    tensors: Mapping[str, npt.NDArray[Any]]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, whatever the file's layout."""
        sum_ = hashlib.sha256(self.manifest.model_dump_json().encode())
        for name in sorted(self.tensors):
            tensor = np.ascontiguousarray(self.tensors[name])
            sum_.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
            sum_.update(tensor.tobytes())
        return sum_.hexdigest()

    def save(self, path: Path, key: bytes | None) -> None:
        """Write the file, signed with the installation's key.

        Raises:
            BundleError: it cannot be written.
        """
        digest = self.digest
        metadata = {"manifest": self.manifest.model_dump_json(), "digest": digest}
        if key is not None:
            metadata["code"] = sign_digest(digest, key)
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in self.tensors.items()}
        try:
            save_file(tensors, path, metadata)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path, key: bytes | None, *, trusted: frozenset[str] = frozenset()) -> "Bundle":
        """Read a bundle from a file.

        ``key``: this installation's; None: whoever wrote it is taken at their word, as ``guard trust`` does.

        Raises:
            BundleError: it is none, was changed, or is signed by nobody known here.
        """
        try:
            with safe_open(path, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            written = json.loads(metadata["manifest"])
            if (schema := written.get("schema_", "guard/1")) != FORMAT:
                raise BundleError(
                    f"{path} has the format {schema}, and this version reads {FORMAT}: compile the charter again"
                )
            bundle = cls(Manifest.model_validate(written), tensors)
        except FileNotFoundError as error:
            raise BundleError(f"{path}: there is no such file") from error
        except (SafetensorError, KeyError, ValidationError, ValueError, OSError) as error:
            raise BundleError(f"{path} is no compiled charter: {type(error).__name__}") from error
        digest = bundle.digest
        if not hmac.compare_digest(digest, metadata.get("digest", "")):
            raise BundleError(f"{path} was changed after it was compiled: compile the charter again")
        if key is not None and digest not in trusted:
            shown = metadata.get("code", "")
            if not hmac.compare_digest(shown, sign_digest(digest, key)):
                raise BundleError(
                    f"{path} was not compiled on this installation. If you know where it is from, sign it with "
                    f"`commonweight guard trust {path}`"
                )
        if any(tensor.dtype.kind == "f" and not np.isfinite(tensor).all() for tensor in tensors.values()):
            raise BundleError(f"{path} holds numbers that are not finite")
        return bundle


def sign_digest(digest: str, key: bytes) -> str:
    """Sign a digest with this installation's key."""
    return compute_mac(key, Purpose.GUARD_BUNDLE, digest.encode()).hex()
