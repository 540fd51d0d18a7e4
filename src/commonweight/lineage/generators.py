"""Terms of models whose outputs may be in data: whether answers that they wrote may train another model.

Facts from the providers' published terms, gathered in November 2026; not legal advice. What a row's ``generator``
names is matched by family; a name that no family has is an unknown generator, and unknown answers block.
"""

import re
from dataclasses import dataclass
from typing import Literal

Answers = Literal["allow", "forbid"]


@dataclass(frozen=True)
class GeneratorTerms:
    """Terms of one family of models, or of one provider."""

    name: str
    pattern: str
    """Regular expression; the first family whose pattern is found in a generator's name decides."""
    answers: Answers
    reason: str
    licence: str | None = None
    """Licence of the table that goes with what the outputs trained, where the terms say so."""


_TABLE = (
    GeneratorTerms(
        "OpenAI services",
        r"\b(?:gpt-?[345]|chatgpt|openai|o[134]-|davinci|text-davinci)",
        "forbid",
        "its terms forbid the use of outputs to develop models that compete",
    ),
    GeneratorTerms(
        "Anthropic services",
        r"\b(?:claude|anthropic)",
        "forbid",
        "its usage policy forbids training a model on outputs without authorisation",
    ),
    GeneratorTerms(
        "Gemini services",
        r"\b(?:gemini|bard|palm-?2)",
        "forbid",
        "its terms forbid the development of models that compete",
    ),
    GeneratorTerms(
        "a vendor's service",
        r"\bvendor|\bhosted\b|\bcommercial (?:api|model)|\bgrok\b|\bcommand-r|\bnova\b|\bjurassic",
        "forbid",
        "the terms of such a service are not known to allow training",
    ),
    GeneratorTerms(
        "Llama 2 and 3",
        r"\bllama-?[ -]?(?:2|3(?![.\d]))",
        "forbid",
        "its licence forbids the use of outputs to improve any other model",
    ),
    GeneratorTerms(
        "Llama 3.1 to 3.3",
        r"\bllama-?[ -]?3\.[1-3]",
        "allow",
        "a model trained on outputs must have a name that begins with Llama",
        "LicenseRef-Llama-3.1",
    ),
    GeneratorTerms(
        "Llama 4",
        r"\bllama-?[ -]?4",
        "allow",
        "a model trained on outputs must have a name that begins with Llama",
        "LicenseRef-Llama-4",
    ),
    GeneratorTerms(
        "Gemma 1 to 3",
        r"\bgemma-?[ -]?(?:[123]\b|[123]-|\d+b)|\bgemma\b(?!-?4)",
        "allow",
        "a model trained on outputs to perform similarly is a derivative under its terms",
        "LicenseRef-Gemma",
    ),
    GeneratorTerms(
        "Mistral under research terms",
        r"\b(?:mistral-large-2|codestral|mnpl|mrl)",
        "forbid",
        "its licence covers outputs, for research or non-production use only",
    ),
    GeneratorTerms("SmolLM", r"\bsmollm", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms("OLMo", r"\bolmo", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms("gpt-oss", r"\bgpt-oss", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms("Qwen 3", r"\bqwen-?3", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms("Gemma 4", r"\bgemma-?4", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms("DeepSeek open weights", r"\bdeepseek-(?:v[34]|r1)", "allow", "MIT asks nothing of outputs"),
    GeneratorTerms("QwQ", r"\bqwq", "allow", "Apache-2.0 asks nothing of outputs"),
    GeneratorTerms(
        "Mixtral and Mistral 7B", r"\bmixtral|\bmistral-7b", "allow", "Apache-2.0 asks nothing of outputs"
    ),
    GeneratorTerms("Commonweight", r"^commonweight/", "allow", "made in this workshop, with a lineage of its own"),
)

# Open weights whose names contain a vendor's come before the vendor.
_FIRST = ("gpt-oss", "Gemma 4")
GENERATORS: tuple[GeneratorTerms, ...] = tuple(sorted(_TABLE, key=lambda terms: terms.name not in _FIRST))


def find_generator(name: str) -> GeneratorTerms | None:
    """The terms of the first family that a generator's name matches; None if there is none."""
    return next((terms for terms in GENERATORS if re.search(terms.pattern, name, re.IGNORECASE)), None)
