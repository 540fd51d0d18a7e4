"""Signatures of release folders: OpenSSF model signatures with an EC P-256 key, made and checked offline.

The library ``model-signing`` makes them. Checking reads the same bundle and compares the digests that were signed
with digests that the caller already has, so that large files are read once, or, for a quick look, not at all; the
library's own verification reads every file, and skips those that the signature itself says to skip.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from commonweight.lineage.digests import digest_bytes, encode_json
from commonweight.lineage.record import Sha256
from commonweight.workshop.release.documents import ReleaseError, decode_json, read_file, validate_model
from commonweight.workshop.release.layout import SIGNATURE

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAX_KEY_BYTES = 1 << 14


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _SignatureBytes(_Part):
    sig: str
    keyid: Literal[""]


class _KeyHint(_Part):
    hint: Sha256


class _Material(_Part):
    public_key: _KeyHint = Field(alias="publicKey")
    log_entries: Annotated[tuple[str, ...], Field(alias="tlogEntries", max_length=0)]


class _Envelope(_Part):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"] = Field(alias="payloadType")
    signatures: Annotated[tuple[_SignatureBytes, ...], Field(min_length=1, max_length=1)]


class _Bundle(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"] = Field(alias="mediaType")
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")


class _Resource(_Part):
    name: str
    algorithm: Literal["sha256"]
    digest: Sha256


class _Serialization(_Part):
    method: Literal["files"]
    hash_type: Literal["sha256"]
    allow_symlinks: Literal[False]
    ignore_paths: tuple[str, ...]


class _Predicate(_Part):
    resources: tuple[_Resource, ...]
    serialization: _Serialization


class _Manifest(_Part):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[dict[str, str | dict[str, str]], ...]
    """The folder's name when it was signed, and a digest of the digests."""
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate


def find_key(setting: str, keys: Path) -> Path:
    """The file of the private key: the one that the settings name, or one in the folder for keys, made once.

    Raises:
        ReleaseError: it is missing, no EC P-256 key, or others can read it.
    """
    if setting != "generate":
        _load_private_key(Path(setting))
        return Path(setting)
    path = keys / "signing-key.pem"
    if not path.exists():
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_key(path)
    _load_private_key(path)
    return path


def read_public_part(key: Path) -> bytes:
    """The public key of a private key's file, as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = _load_private_key(key).public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def sign_folder(folder: Path, key: Path) -> None:
    """Write ``model.sig`` over all files of a folder."""
    from model_signing import hashing, signing

    (folder / SIGNATURE).unlink(missing_ok=True)
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config)
    signer.sign(folder, folder / SIGNATURE)
    # In one form, so that no byte of it can change unnoticed.
    (folder / SIGNATURE).write_bytes(encode_json(decode_json(read_file(folder / SIGNATURE), SIGNATURE)) + b"\n")


def load_public_key(data: bytes, name: str) -> bytes:
    """A public key in the one form to compare it by.

    Raises:
        ReleaseError: it is not the public key of an EC P-256 pair.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{name} is not a public key in PEM.") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ReleaseError(f"{name} is not the public key of an EC P-256 pair.")
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def read_key_file(path: Path) -> bytes:
    """A public key's file, in the one form to compare it by.

    Raises:
        ReleaseError: it is missing or no such key.
    """
    return load_public_key(read_file(path, _MAX_KEY_BYTES), path.name)


def read_signed_digests(folder: Path, key: bytes) -> dict[str, str]:
    """Digests by name that a folder's signature is over.

    Args:
        key: public key, as :func:`load_public_key` gives it.

    Raises:
        ReleaseError: the signature is malformed, or not by that key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    data = read_file(folder / SIGNATURE)
    content = decode_json(data, SIGNATURE)
    bundle = validate_model(_Bundle, content, SIGNATURE)
    public = load_der_public_key(key)
    assert isinstance(public, EllipticCurvePublicKey)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if encode_json(content) + b"\n" != data or bundle.material.public_key.hint != digest_bytes(pem):
        raise ReleaseError(f"{SIGNATURE} is not written as releases are, or names another key.")
    try:
        payload = base64.b64decode(bundle.envelope.payload, validate=True)
        signature = base64.b64decode(bundle.envelope.signatures[0].sig, validate=True)
    except binascii.Error as error:
        raise ReleaseError(f"{SIGNATURE} is not valid base64.") from error
    if any(base64.b64encode(raw).decode() != text for raw, text in _pair(bundle, payload, signature)):
        raise ReleaseError(f"{SIGNATURE} is not written as releases are.")
    kind = _PAYLOAD_TYPE.encode()
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    try:
        public.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature as error:
        raise ReleaseError(f"{SIGNATURE} was not made with this key, or was changed.") from error
    manifest = validate_model(_Manifest, decode_json(payload, SIGNATURE), SIGNATURE)
    digests = {resource.name: resource.digest for resource in manifest.predicate.resources}
    if len(digests) != len(manifest.predicate.resources):
        raise ReleaseError(f"{SIGNATURE} names a file twice.")
    if set(manifest.predicate.serialization.ignore_paths) - {SIGNATURE}:
        raise ReleaseError(f"{SIGNATURE} leaves files out of what it signs.")
    return digests


def _pair(bundle: _Bundle, payload: bytes, signature: bytes) -> tuple[tuple[bytes, str], tuple[bytes, str]]:
    return (payload, bundle.envelope.payload), (signature, bundle.envelope.signatures[0].sig)


def _load_private_key(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a class of the extra
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_file(path, _MAX_KEY_BYTES)
    if path.stat().st_mode & 0o077:
        raise ReleaseError(f"The private key {path.name} can be read by others; chmod 600 it.")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{path.name} is not a private key in PEM without a password.") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ReleaseError(f"{path.name} is not an EC P-256 key.")
    return key


def _write_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
