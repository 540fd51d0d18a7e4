"""Verification of a release folder, or of one file of weights, offline: without an engine, llama.cpp or torch."""

import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from commonweight.catalog.gguf_names import parse_quantisation
from commonweight.lineage.chain import CHAIN
from commonweight.lineage.digests import LineageError, digest_file
from commonweight.workshop.release.consistency import (
    check_documents,
    check_figures,
    check_names,
    check_parity,
    list_declarations,
)
from commonweight.workshop.release.documents import ReleaseError, quote
from commonweight.workshop.release.evidence import Evidence, WeightsFacts, quote_sentence, read_evidence
from commonweight.workshop.release.integrity import (
    QUICK_BYTES,
    WEIGHT_SUFFIXES,
    check_files,
    check_listing,
    check_signature,
)
from commonweight.workshop.release.layout import DECLARATION, WEIGHTS
from commonweight.workshop.release.report import WITH_KEY, WITHOUT_KEY, Checks, Report
from commonweight.workshop.release.safetensors_head import digest_without_head
from commonweight.workshop.release.signature import read_key_file
from commonweight.workshop.release.weights import count_sampled_bytes, digest_sample, read_header

_ORIGIN = "F16"
"""Quantisation that the others are made from."""


def verify_release(path: Path, trusted_key: Path | None = None, quick: bool = False) -> Report:
    """Verify a release folder, or look at one file of weights alone.

    Args:
        trusted_key: public key that must have signed; without one that of the release counts, which proves less.
        quick: sample large files of weights instead of reading them, and quantise nothing.

    Raises:
        ReleaseError: there is nothing at the path, or the trusted key cannot be read.
    """
    trusted = read_key_file(trusted_key) if trusted_key is not None else None
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ReleaseError(f"{quote(path.name)} cannot be read: {error.strerror}.") from error
    if stat.S_ISREG(mode):
        return _look_at_file(path)
    if not stat.S_ISDIR(mode):
        raise ReleaseError(f"{quote(path.name)} is neither a folder nor a file.")
    checks = Checks()
    try:
        _verify_folder(path, trusted, quick, checks)
    except OSError as error:
        checks.fail(f"{quote(Path(str(error.filename)).name)} cannot be read: {error.strerror}.")
    except (ReleaseError, LineageError) as error:
        checks.fail(quote_sentence(str(error)))
    undetectable = WITH_KEY if trusted is not None else (*WITHOUT_KEY, *WITH_KEY)
    return Report(
        name=quote(path.resolve().name),
        kind="release",
        statements=tuple(checks.statements),
        left_out=tuple(checks.left_out),
        undetectable=undetectable,
    )


def _verify_folder(folder: Path, trusted: bytes | None, quick: bool, checks: Checks) -> None:
    sizes = check_listing(folder, checks)
    if sizes is None:
        checks.left_out.append("All contents: of a folder with such files nothing is read.")
        return
    sums = check_files(folder, sizes, checks, quick)
    check_signature(folder, sums, trusted, checks)
    try:
        evidence = read_evidence(folder)
        evidence.export  # noqa: B018 - raises where the chain does not have it
        evidence.head  # noqa: B018
    except (ReleaseError, LineageError) as error:
        checks.fail(quote_sentence(str(error)))
        checks.left_out.append("The documents, whose evidence cannot be read.")
        return
    count = len(evidence.chain.records)
    checks.add("proved", f"{CHAIN}: {count} records in order, each with all that it depends on.", CHAIN)
    check_names(evidence, sums, checks)
    check_documents(folder, evidence, checks)
    check_figures(evidence, checks)
    check_parity(evidence, checks)
    _check_weights(folder, evidence, sums, quick, checks)
    _check_quantised(folder, evidence, sums, quick, checks)
    for sentence in list_declarations(evidence):
        checks.add("declared", sentence)


def _check_weights(folder: Path, evidence: Evidence, sums: Mapping[str, str], quick: bool, checks: Checks) -> None:
    declared = evidence.declaration.weights
    found = {name for name in sums if name.endswith(WEIGHT_SUFFIXES)}
    for name in sorted(found ^ declared.keys()):
        checks.fail(f"{quote(name)} is in {DECLARATION} or the folder, and not in both.", quote(name))
    for name in sorted(found & declared.keys()):
        _check_weights_file(folder / name, name, declared[name], evidence, sums[name], quick, checks)


def _check_weights_file(
    path: Path, name: str, facts: WeightsFacts, evidence: Evidence, digest: str, quick: bool, checks: Checks
) -> None:
    if not path.is_file():
        return
    size = path.stat().st_size
    if facts.sha256 != digest or facts.size != size:
        checks.fail(f"{name} has another digest or size than {DECLARATION} states.", name)
        return
    try:
        header = read_header(path)
    except ReleaseError as error:
        checks.fail(str(error), name)
        return
    if (header.parameters, header.head) != (facts.parameters, facts.head):
        checks.fail(f"{name} states other parameters or another lineage head than {DECLARATION}.", name)
    elif header.head is not None and header.head != evidence.head:
        checks.fail(f"{name} states the lineage head {quote(header.head[:12])}, and {CHAIN} another.", name)
    elif header.head is not None:
        checks.add("consistent", f"{name} states the lineage's head before export, {header.head[:12]}.", name)
    else:
        checks.fail(f"{name} states no lineage head.", name)
    if name == WEIGHTS and not (quick and size > QUICK_BYTES):
        _check_origin(path, name, digest, evidence, checks)
    licence = header.metadata.get("general.license")
    if licence is not None and str(licence).lower() != evidence.declaration.licence.lower():
        checks.fail(
            f"{name} states the licence {quote(licence)}, and the card {evidence.declaration.licence}.", name
        )
    if quick and size > QUICK_BYTES:
        if digest_sample(path) != facts.sample:
            checks.fail(f"{name} is not the file that {DECLARATION} describes: its sampled bytes differ.", name)
            return
        read = count_sampled_bytes(size)
        checks.add(
            "consistent", f"{name}: size, header and {read} sampled bytes are those of {DECLARATION}.", name
        )
        checks.left_out.append(f"{name}: {size - read} of {size} bytes were not read.")


def _check_origin(path: Path, name: str, digest: str, evidence: Evidence, checks: Checks) -> None:
    export = evidence.export
    described = [export, *(evidence.get_record(item.record) for item in export.inputs if item.record)]
    recorded = {record.files.get(path.name) for record in described}
    if digest in recorded or digest_without_head(path) in recorded:
        checks.add("proved", f"{name} is the file of its record, with the lineage's head added.", name)
    else:
        checks.fail(f"{name} without the lineage's head is not the file of the model's record.", name)


def _check_quantised(
    folder: Path, evidence: Evidence, sums: Mapping[str, str], quick: bool, checks: Checks
) -> None:
    files = {name: parse_quantisation(name) for name in evidence.declaration.weights if name.endswith(".gguf")}
    origins = [name for name, kind in files.items() if kind == _ORIGIN]
    quantised = {name: kind for name, kind in files.items() if kind is not None and name not in origins}
    if len(origins) != 1:
        if quantised:
            checks.fail(f"There are {len(origins)} files in {_ORIGIN} to quantise again, and one is needed.")
        return
    if quick:
        checks.left_out.append(f"Whether {len(quantised)} quantised files are made from {origins[0]}.")
        return
    if any(checks.has_failures(name) for name in origins) or not (folder / origins[0]).is_file():
        checks.left_out.append(f"Quantised files: {origins[0]} is not sound.")
        return
    for name, kind in sorted(quantised.items()):
        _check_quantised_file(folder / origins[0], name, str(kind), sums.get(name), checks)


def _check_quantised_file(origin: Path, name: str, kind: str, digest: str | None, checks: Checks) -> None:
    with tempfile.TemporaryDirectory(prefix="commonweight-verify-") as place:
        again = Path(place) / "again.gguf"
        try:
            from commonweight.workshop.export.quantise import requantise

            requantise(origin, kind, again)
        except Exception as error:  # a library meets a file that anybody may have made
            reason = quote_sentence(str(error)).replace(str(origin), origin.name)
            checks.fail(f"{name} cannot be made again from {origin.name}: {reason}", name)
            return
        if digest_file(again) != digest:
            checks.fail(f"{name} is not {origin.name} in {kind}: the files differ.", name)
        else:
            checks.add("proved", f"{name} equals {origin.name}, quantised again, byte for byte.", name)


def _look_at_file(path: Path) -> Report:
    checks = Checks()
    try:
        header = read_header(path)
    except ReleaseError as error:
        checks.fail(str(error), path.name)
    else:
        metadata = header.metadata
        checks.add(
            "proved", f"A sound {header.format} file, {header.parameters} parameters, SHA-256 {digest_file(path)}."
        )
        if header.head is None:
            checks.add("declared", "It states no lineage head.")
        else:
            checks.add("declared", f"Its lineage's head before export is {quote(header.head)}.")
        base = metadata.get("general.base_model.0.repo_url", metadata.get("general.base_model.0.name"))
        for what, value in (
            ("name", metadata.get("general.name")),
            ("licence", metadata.get("general.license", metadata.get("license"))),
            ("base", base),
        ):
            stated = f"Its {what}, as it states: {quote(value)}." if value is not None else f"It states no {what}."
            checks.add("declared", stated)
        checks.left_out += [
            "Signature, records, gate, licences and figures: they are in the release that the file is from.",
            "Whether it is the file of that release: compare its digest with the release's SHA256SUMS.",
        ]
    undetectable = ("A file that was changed, with its metadata: a file alone carries no signature.",)
    return Report(quote(path.name), "file", tuple(checks.statements), tuple(checks.left_out), undetectable)
