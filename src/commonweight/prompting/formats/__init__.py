"""Tool-call formats of model families, and detection of the one that a chat template writes."""

from commonweight.prompting.formats.deepseek import DEEPSEEK, DEEPSEEK_31
from commonweight.prompting.formats.generic import GENERIC
from commonweight.prompting.formats.glm import GLM, GLM_TIGHT
from commonweight.prompting.formats.harmony import HARMONY
from commonweight.prompting.formats.hermes import HERMES
from commonweight.prompting.formats.kimi import KIMI
from commonweight.prompting.formats.llama3 import LLAMA3
from commonweight.prompting.formats.minimax import MINIMAX
from commonweight.prompting.formats.mistral import MISTRAL, MISTRAL_ARGS, MISTRAL_IDS, MISTRAL_SPACED
from commonweight.prompting.formats.qwen_coder import QWEN_CODER
from commonweight.prompting.formats.seed import SEED
from commonweight.prompting.formats.syntax import (
    CALL_ID,
    NUMBER,
    ArgumentMarkup,
    Tags,
    ToolCallFormat,
    iter_texts,
    map_texts,
)

# detect_format takes the first that fits. No two fit the same call, even with a common trigger (GLM, QWEN_CODER,
# HERMES) or head of a call (MISTRAL and MISTRAL_SPACED), so their order does not matter: test_formats.py detects
# the call of each in this order and in reverse. GENERIC must not be one of them: it has the text of HERMES, and a
# template detected as GENERIC counts as one without calls.
FAMILIES = (
    HARMONY,
    GLM,
    GLM_TIGHT,
    QWEN_CODER,
    SEED,
    MINIMAX,
    KIMI,
    DEEPSEEK,
    DEEPSEEK_31,
    MISTRAL_IDS,
    MISTRAL_ARGS,
    MISTRAL,
    MISTRAL_SPACED,
    LLAMA3,
    HERMES,
)

# Tags of reasoning outside of tool-call formats: many families share one pair, and one family has several.
_THINKING = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
)

SAMPLE_NAME, SAMPLE_KEY, SAMPLE_VALUE, SAMPLE_ID = "zqname", "zqkey", "zqvalue", "a1B2c3D4e"


def detect_format(rendered_call: str) -> ToolCallFormat:
    """The format of a call of ``SAMPLE_NAME`` in rendered text; ``GENERIC`` if none of ``FAMILIES`` fits."""

    def fits(family: ToolCallFormat) -> bool:
        if family.rendered_before_name:
            return family.rendered_before_name + SAMPLE_NAME in rendered_call
        head = family.before_name + SAMPLE_NAME + fill_placeholders(family.before_input)
        head += family.arguments.before_key if family.arguments else "{"
        return head in rendered_call and family.opening in rendered_call

    return next((family for family in FAMILIES if fits(family)), GENERIC)


def fill_placeholders(text: str) -> str:
    """Markup of a format with sample values for ``CALL_ID`` and ``NUMBER``."""
    return text.replace(CALL_ID, SAMPLE_ID).replace(NUMBER, "0")


def find_thinking_tags(chat_template: str, family: ToolCallFormat) -> Tags | None:
    """The tags around reasoning for the model of a chat template; None if the model was not trained to reason."""
    if family.thinking is not None:
        return family.thinking
    return next((tags for tags in _THINKING if tags.closing in chat_template), None)


__all__ = [
    "CALL_ID",
    "FAMILIES",
    "GENERIC",
    "NUMBER",
    "SAMPLE_ID",
    "SAMPLE_KEY",
    "SAMPLE_NAME",
    "SAMPLE_VALUE",
    "ArgumentMarkup",
    "Tags",
    "ToolCallFormat",
    "detect_format",
    "fill_placeholders",
    "find_thinking_tags",
    "iter_texts",
    "map_texts",
]
