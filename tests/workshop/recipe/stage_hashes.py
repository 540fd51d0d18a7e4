"""Hashes of the code that decides what a stage writes, and the file that holds those of the last versions.

Of a kind of stage that code is: its module, and every module of the workshop's rooms and of
``commonweight.lineage`` that this imports, directly or not, also inside functions; for kinds whose records hold
decisions the provenance gate besides. Comments, docstrings and layout do not count. Left out are the recipe room,
which only calls it, and the engine, which keys hold by the versions of tools. Other floors (readers of GGUF files,
the catalog) are left out, too: who changes what they return raises the version of ``import`` by hand.

    python tests/workshop/recipe/stage_hashes.py                     # after raising versions
    python tests/workshop/recipe/stage_hashes.py --unchanged REASON  # where outputs stay the same, byte for byte
"""

import argparse
import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from commonweight.workshop.recipe.stage_kind import DECIDED, StageKind
from commonweight.workshop.recipe.stages import KINDS

HASHES = Path(__file__).with_name("stage_hashes.json")
SCRIPT = "python tests/workshop/recipe/stage_hashes.py"
_WITHIN = ("commonweight.workshop.", "commonweight.lineage.")
_GATE = "commonweight.lineage.provenance"


def compute_hash(kind: StageKind) -> str:
    """The hash of a kind's code."""
    modules = list_closure([kind.module, *([_GATE] if kind.name in DECIDED else [])])
    sources = [[name, normalise(path.read_text(encoding="utf-8"))] for name, path in sorted(modules.items())]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def list_closure(roots: list[str]) -> dict[str, Path]:
    """Files by module: the roots and what they import within the rooms and the lineage."""
    found: dict[str, Path] = {}
    pending = list(roots)
    while pending:
        name = pending.pop()
        path = _find_file(name)
        if name in found or path is None:
            continue
        found[name] = path
        pending += [one for one in list_imports(path.read_text(encoding="utf-8")) if one.startswith(_WITHIN)]
    return found


def list_imports(source: str) -> Iterator[str]:
    """Names that a module imports anywhere; of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def normalise(source: str) -> str:
    """A module's code without comments, docstrings (those of fields, too) and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [one for one in statements if not _is_text(one)] or [ast.Pass()])
    return ast.unparse(ast.fix_missing_locations(tree))


def judge(kinds: Mapping[str, tuple[int, str]], recorded: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the file, one sentence a kind, which says what to do.

    Args:
        kinds: version and hash by kind, as the code is.
    """
    known = recorded["kinds"]
    exempt = {(entry["kind"], entry["hash"]) for entry in recorded["exempt"]}
    for name in sorted(known.keys() - kinds.keys()):
        yield f"the kind {name} is gone: run `{SCRIPT}`"
    for name, (version, digest) in kinds.items():
        before = known.get(name)
        if before is None or before["version"] != version:
            yield f"the version of {name} is new: run `{SCRIPT}`, and commit stage_hashes.json"
        elif before["hash"] != digest and (name, digest) not in exempt:
            yield (
                f"the code of {name} has changed ({digest[:12]}): if its outputs may change by a byte, raise its "
                f"version in workshop/recipe/stages/ and run `{SCRIPT}`; if not, run "
                f"`{SCRIPT} --unchanged 'why not'`"
            )


def update(
    kinds: Mapping[str, tuple[int, str]], recorded: Mapping[str, Any], reason: str | None
) -> dict[str, Any]:
    """The file's new content.

    Args:
        reason: why kinds whose code has changed, and not their version, write the same; None: they may not.
    """
    known, exempt = dict(recorded["kinds"]), {entry["kind"]: entry for entry in recorded["exempt"]}
    for name in list(known):
        if name not in kinds:
            del known[name]
            exempt.pop(name, None)
    for name, (version, digest) in kinds.items():
        if name not in known or known[name]["version"] != version:
            known[name] = {"version": version, "hash": digest}
            exempt.pop(name, None)
        elif known[name]["hash"] == digest:
            exempt.pop(name, None)
        elif exempt.get(name, {}).get("hash") != digest and reason is not None:
            exempt[name] = {"kind": name, "hash": digest, "reason": reason}
    return {"kinds": dict(sorted(known.items())), "exempt": [exempt[name] for name in sorted(exempt)]}


def read_hashes() -> dict[str, Any]:
    """The file's content."""
    if not HASHES.exists():
        return {"kinds": {}, "exempt": []}
    content: dict[str, Any] = json.loads(HASHES.read_text(encoding="utf-8"))
    return content


def compute_hashes() -> dict[str, tuple[int, str]]:
    """Version and hash of every kind, as the code is."""
    return {name: (kind.version, compute_hash(kind)) for name, kind in KINDS.items()}


def _find_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a class or function of a module, not a module
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _is_text(statement: object) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def main() -> int:
    """Write the file; say what remains to be done."""
    parser = argparse.ArgumentParser(description="Record the hashes of the code of stages.")
    parser.add_argument("--unchanged", metavar="REASON", help="why outputs stay the same")
    kinds = compute_hashes()
    content = update(kinds, read_hashes(), parser.parse_args().unchanged)
    HASHES.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    problems = list(judge(kinds, content))
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
