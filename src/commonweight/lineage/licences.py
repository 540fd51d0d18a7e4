"""Licences and their obligations for models trained on licensed material, and the union of several licences.

Not legal advice. A licence is known by its SPDX identifier or by a ``LicenseRef-`` name of the table. What is not
in the table is unknown, and unknown blocks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from commonweight.lineage.digests import LineageError

Kind = Literal["public-domain", "permissive", "share-alike", "restricted"]


@dataclass(frozen=True)
class Licence:
    """Facts about one licence."""

    id: str
    name: str
    kind: Kind
    commercial: bool = True
    """Whether commercial use is permitted."""
    adaptations: bool = True
    """Whether changed versions may be passed on."""
    attribution: bool = True
    """Whether the source and its notice must be named."""
    obligations: tuple[str, ...] = ()
    """Obligations of distributing a model trained on it, one sentence each."""
    naming: str | None = None
    """What the name of a model made of it must begin with."""
    territory: str | None = None
    """Where it does not hold, in a sentence."""
    compatible_with: tuple[str, ...] = ()
    """Of share-alike licences: others under which an adaptation may be passed on."""


_PASS_ON = "pass the licence's text and its use restrictions on with the model"
_NOTICE = "keep the copyright notice and the licence's text"
_CHANGES = "keep NOTICE files and state changes"

_TABLE = (
    Licence("LicenseRef-Public-Domain", "Public domain", "public-domain", attribution=False),
    Licence("CC0-1.0", "Creative Commons Zero 1.0", "public-domain", attribution=False),
    Licence("PDDL-1.0", "Open Data Commons Public Domain Dedication", "public-domain", attribution=False),
    Licence("Unlicense", "The Unlicense", "public-domain", attribution=False),
    Licence("blessing", "SQLite blessing", "public-domain", attribution=False),
    Licence("MIT", "MIT License", "permissive", obligations=(_NOTICE,)),
    Licence("BSD-2-Clause", "BSD 2-Clause", "permissive", obligations=(_NOTICE,)),
    Licence("BSD-3-Clause", "BSD 3-Clause", "permissive", obligations=(_NOTICE,)),
    Licence("ISC", "ISC License", "permissive", obligations=(_NOTICE,)),
    Licence("PSF-2.0", "Python Software Foundation License 2.0", "permissive", obligations=(_NOTICE,)),
    Licence("Apache-2.0", "Apache License 2.0", "permissive", obligations=(_NOTICE, _CHANGES)),
    Licence("WordNet", "WordNet License", "permissive", obligations=(_NOTICE,)),
    Licence("CC-BY-3.0", "Creative Commons Attribution 3.0", "permissive"),
    Licence("CC-BY-4.0", "Creative Commons Attribution 4.0", "permissive"),
    Licence("ODC-By-1.0", "Open Data Commons Attribution 1.0", "permissive"),
    Licence(
        "CC-BY-SA-3.0",
        "Creative Commons Attribution-ShareAlike 3.0",
        "share-alike",
        compatible_with=("CC-BY-SA-4.0",),
    ),
    Licence("CC-BY-SA-4.0", "Creative Commons Attribution-ShareAlike 4.0", "share-alike"),
    Licence("ODbL-1.0", "Open Database License 1.0", "share-alike"),
    Licence("GFDL-1.3-or-later", "GNU Free Documentation License 1.3", "share-alike"),
    Licence(
        "GPL-2.0-or-later",
        "GNU General Public License 2.0 or later",
        "share-alike",
        compatible_with=("GPL-3.0-or-later",),
    ),
    Licence("GPL-2.0-only", "GNU General Public License 2.0", "share-alike"),
    Licence("GPL-3.0-or-later", "GNU General Public License 3.0 or later", "share-alike"),
    Licence("AGPL-3.0-or-later", "GNU Affero General Public License 3.0 or later", "share-alike"),
    Licence("CC-BY-NC-3.0", "Creative Commons Attribution-NonCommercial 3.0", "restricted", commercial=False),
    Licence("CC-BY-NC-4.0", "Creative Commons Attribution-NonCommercial 4.0", "restricted", commercial=False),
    Licence(
        "CC-BY-NC-SA-3.0",
        "Creative Commons Attribution-NonCommercial-ShareAlike 3.0",
        "share-alike",
        commercial=False,
        compatible_with=("CC-BY-NC-SA-4.0",),
    ),
    Licence(
        "CC-BY-NC-SA-4.0",
        "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
        "share-alike",
        commercial=False,
    ),
    Licence("CC-BY-ND-4.0", "Creative Commons Attribution-NoDerivatives 4.0", "restricted", adaptations=False),
    Licence(
        "CC-BY-NC-ND-4.0",
        "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0",
        "restricted",
        commercial=False,
        adaptations=False,
    ),
    Licence("OpenRAIL", "OpenRAIL-M family", "restricted", obligations=(_PASS_ON,)),
    Licence(
        "LicenseRef-Llama-3",
        "Llama 3 Community License",
        "restricted",
        obligations=(
            "show 'Built with Meta Llama 3'",
            "pass on the agreement and a Notice file",
            "above 700 million monthly users ask for a licence of its own",
        ),
        naming="Llama 3",
    ),
    Licence(
        "LicenseRef-Llama-3.1",
        "Llama 3.1 to 3.3 Community License",
        "restricted",
        obligations=(
            "show 'Built with Llama'",
            "pass on the agreement and a Notice file",
            "above 700 million monthly users ask for a licence of its own",
        ),
        naming="Llama",
    ),
    Licence(
        "LicenseRef-Llama-4",
        "Llama 4 Community License",
        "restricted",
        obligations=(
            "show 'Built with Llama'",
            "pass on the agreement and a Notice file",
            "above 700 million monthly users ask for a licence of its own",
        ),
        naming="Llama",
        territory="its multimodal models are not licensed to persons and companies domiciled in the EU",
    ),
    Licence(
        "LicenseRef-Gemma",
        "Gemma Terms of Use",
        "restricted",
        obligations=("pass the terms and the prohibited-use policy on", "state changes"),
    ),
    Licence("LicenseRef-Mistral-Research", "Mistral Research License", "restricted", commercial=False),
    Licence("LicenseRef-Mistral-Non-Production", "Mistral Non-Production License", "restricted", commercial=False),
    Licence(
        "LicenseRef-Qwen",
        "Qwen License",
        "restricted",
        obligations=(
            "show 'Built with Qwen' or 'Improved using Qwen'",
            "above 100 million monthly users ask for a licence of its own",
        ),
    ),
    Licence("LicenseRef-Qwen-Research", "Qwen Research License", "restricted", commercial=False),
    Licence(
        "LicenseRef-Kimi-K2",
        "Kimi K2 modified MIT",
        "restricted",
        obligations=(
            _NOTICE,
            "above 100 million monthly users or 20 million dollars a month show 'Kimi K2' in the interface",
        ),
    ),
    Licence(
        "LicenseRef-MiniMax-Model",
        "MiniMax Model License",
        "restricted",
        obligations=(
            "pass on the agreement and a Notice file",
            "no military use, no fully automated legal decisions",
        ),
    ),
)

LICENCES: Mapping[str, Licence] = {licence.id: licence for licence in _TABLE}


@dataclass(frozen=True)
class Obligations:
    """Combined obligations of distributing an output: those of the licences of all its material."""

    licences: tuple[Licence, ...]
    licence: str | None
    """The licence that the output must carry; None where the publisher chooses."""
    sentences: tuple[str, ...]
    naming: tuple[str, ...]
    attributions: tuple[str, ...]
    """Licences whose sources must be named."""
    commercial: bool


def find_licence(name: str | None) -> Licence | None:
    """The licence of an identifier, in any case of letters; None if it is unknown."""
    if name is None:
        return None
    return LICENCES.get(name) or next((lic for lic in _TABLE if lic.id.lower() == name.strip().lower()), None)


def fold_licences(
    names: Iterable[str], share_alike: Literal["propagate", "attribute"] = "propagate"
) -> Obligations:
    """Fold the licences of all material into what they ask together.

    Args:
        share_alike: whether share-alike material decides the licence of the output, or is only named.

    Raises:
        LineageError: one is unknown, or two cannot be met at once.
    """
    known: list[Licence] = []
    for name in sorted(set(names)):
        licence = find_licence(name)
        if licence is None:
            raise LineageError(f"The licence {name!r} is not known, so what it asks is not either.")
        known.append(licence)
    required = _fold_share_alike([lic for lic in known if lic.kind == "share-alike"], share_alike)
    limited = next((lic for lic in known if not lic.commercial), None)
    if required and limited and LICENCES[required].commercial:
        raise LineageError(f"{required} lets everybody use the output commercially, and {limited.id} does not.")
    naming = tuple(sorted({lic.naming for lic in known if lic.naming}))
    if len([name for name in naming if not any(o != name and o.startswith(name) for o in naming)]) > 1:
        raise LineageError(f"The output's name cannot begin with {' and with '.join(naming)}.")
    return Obligations(
        licences=tuple(known),
        licence=required,
        sentences=tuple(f"{lic.id}: {sentence}" for lic in known for sentence in _list_obligations(lic)),
        naming=naming,
        attributions=tuple(lic.id for lic in known if lic.attribution),
        commercial=all(lic.commercial for lic in known),
    )


def _list_obligations(licence: Licence) -> Iterable[str]:
    yield from licence.obligations
    if licence.attribution and not licence.obligations:
        yield "name the source and the licence, and say what was changed"
    if not licence.commercial:
        yield "no commercial use"
    if licence.territory:
        yield licence.territory


def _fold_share_alike(licences: list[Licence], policy: Literal["propagate", "attribute"]) -> str | None:
    if policy == "attribute" or not licences:
        return None
    for candidate in licences:
        if all(lic is candidate or candidate.id in lic.compatible_with for lic in licences):
            return candidate.id
    names = " and ".join(lic.id for lic in licences)
    raise LineageError(f"{names} each ask that the output carries them, and it cannot carry both.")
