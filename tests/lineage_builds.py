"""A build folder with records of outputs that were never computed: what lineage shows of it is the same."""

from pathlib import Path

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.chain import fold
from commonweight.lineage.digests import digest_bytes, digest_files
from commonweight.lineage.record import Input, Record, write_record

STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "pages": ("source", ()),
    "clean": ("filter", ("pages",)),
    "tokenizer": ("tokenizer", ("clean",)),
    "base": ("pretrain", ("clean", "tokenizer")),
}


def write_build(path: Path, licence: str = "CC0-1.0", origin: str = "pages.jsonl") -> dict[str, Record]:
    """Write the folder.

    Returns:
        Its records, by stage.
    """
    folder = BuildFolder(path)
    folder.create()
    records: dict[str, Record] = {}
    for name, (kind, inputs) in STAGES.items():
        key = digest_bytes(name.encode())
        draft = folder.get_draft(name, key)
        draft.mkdir()
        (draft / "output.txt").write_text(name)
        own = (licence,) if not inputs else ()
        outside = Input(role="source", name=origin, digest=digest_bytes(origin.encode()))
        records[name] = Record(
            kind=kind,
            name=name,
            inputs=tuple(
                Input(role="data", name=one, digest=records[one].content, record=records[one].identity)
                for one in inputs
            )
            or (outside,),
            files=digest_files(draft),
            own_licences=own,
            licences=fold([records[one] for one in inputs], own, "licences"),
        )
        write_record(draft, records[name], {})
        folder.publish(name, key)
    stages = {
        name: {"key": digest_bytes(name.encode()), "state": "done", "record": record.identity}
        for name, record in records.items()
    }
    folder.write_status({"recipe": "small", "stages": stages})
    return records
