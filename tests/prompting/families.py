"""Families of models, as far as rendering goes: a chat template and a tokenizer that belong together.

The templates are written for these tests; each does what well-known ones of its name do to messages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import tool_templates
import vocabularies

from commonweight.prompting import Renderer, Tokenizer
from commonweight.prompting.template.chat_template import ChatTemplate

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""

LLAMA_3 = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Cutting Knowledge Date: December 2023\n\n' + system_message + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim }}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

ZEPHYR = """\
{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>' + '\n' }}
    {%- if loop.last and add_generation_prompt %}{{ '<|' + 'assistant' + '|>\n' }}{% endif %}
{%- endfor %}"""

APRIEL = (
    """\
{%- if not messages | selectattr('role', 'equalto', 'system') | list -%}
{{ '<|system|>\n' + 'Reason step by step.' + '<|end|>' + '\n' }}
{%- endif -%}"""
    + ZEPHYR
)

SMOL_3 = """\
{%- for message in messages %}
    {%- set content = message['content'].replace('/no_think', '').replace('/think', '').rstrip() %}
    {{- '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


@dataclass(frozen=True)
class Family:
    """A chat template and the tokenizer of the models that have it."""

    name: str
    tokenizer_of: Callable[[], Tokenizer]
    template_source: str | None
    """None: the model has no template."""
    trims: bool = False
    """The template cuts space at the ends of texts."""
    cuts: bool = False
    """The template takes other things out of texts."""
    takes_system: bool = True
    calls: str = "generic"
    """The format of its calls."""
    switch: str = ""
    """The template's variable that turns reasoning on."""
    no_thinking: str = ""
    """What must follow the template's text, so that the model does not reason."""
    before_prefill: str = ""
    """What must stand before any text."""
    turn: str = ""
    """What the template begins a turn of the assistant with."""
    drops_reasoning: Literal["never", "at once", "when the user speaks", "when it has answered"] = "never"
    """When the template no longer shows what was reasoned, which it does at first if at all."""
    moves_tools: str = ""
    """What stands before the tools, if they move on to the last message of the user."""

    def __str__(self) -> str:
        return self.name

    @property
    def tokenizer(self) -> Tokenizer:
        """The family's tokenizer."""
        return self.tokenizer_of()

    @property
    def renderer(self) -> Renderer:
        """What the product renders the family's requests with."""
        return _renderer(self)

    def rendered(self, *turns: tuple[str, str]) -> str:
        """What the template alone makes of turns, each a role and a text, where the model shall not reason."""
        assert self.template_source is not None
        tokenizer = self.tokenizer
        assert tokenizer.bos_id is not None
        assert tokenizer.eos_id is not None
        bos_token, eos_token = (
            tokenizer.get_token_text(tokenizer.bos_id),
            tokenizer.get_token_text(tokenizer.eos_id),
        )
        template = ChatTemplate(self.template_source, bos_token=bos_token, eos_token=eos_token)
        variables: dict[str, Any] = {self.switch: False} if self.switch else {}
        return template.render([{"role": role, "content": text} for role, text in turns], **variables)


@cache
def _renderer(family: Family) -> Renderer:
    return Renderer(family.tokenizer, family.template_source)


IM_TURN = "<|im_start|>assistant\n"
STARTER = Family(
    "starter",
    vocabularies.starter_tokenizer,
    vocabularies.starter_gguf().metadata["tokenizer.chat_template"],
    turn=IM_TURN,
)
WITHOUT_TEMPLATE = Family("without-template", vocabularies.starter_tokenizer, None)
FAMILIES = [
    STARTER,
    Family("chatml", vocabularies.byte_level_tokenizer, CHATML, turn=IM_TURN),
    Family("chatml-mistral", vocabularies.mistral_tokenizer, CHATML, turn=IM_TURN),
    Family("llama-3", vocabularies.byte_level_tokenizer, LLAMA_3, trims=True, turn="<|start_header_id|>assistant"),
    Family(
        "gemma",
        vocabularies.gemma_tokenizer,
        GEMMA,
        trims=True,
        takes_system=False,
        turn="<start_of_turn>model\n",
    ),
    Family("mistral", vocabularies.mistral_tokenizer, MISTRAL),
    Family("zephyr", vocabularies.phi_tokenizer, ZEPHYR, trims=True, turn="<|assistant|>"),
    Family("apriel", vocabularies.phi_tokenizer, APRIEL, trims=True, turn="<|assistant|>"),
    Family("smol-3", vocabularies.starter_tokenizer, SMOL_3, cuts=True, turn=IM_TURN),
]
"""Families that have a template, and no idea of tools."""

_HARMONY_TOKENS = ("start", "end", "message", "channel", "constrain", "return", "call", "endoftext")
_DEEPSEEK_TOKENS = tuple(
    f"<\uff5c{name}\uff5c>"
    for name in (
        *("begin▁of▁sentence", "end▁of▁sentence", "User", "Assistant", "tool▁calls▁begin", "tool▁calls▁end"),
        *("tool▁call▁begin", "tool▁call▁end", "tool▁sep", "tool▁output▁begin", "tool▁output▁end"),
    )
)
_GLM_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_GLM_TAGS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink"),
)
_KIMI_TOKENS = (
    *("[BOS]", "[EOS]", "<|im_end|>", "<|im_middle|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>"),
    *(f"<|tool_{part}|>" for part in ("calls_section_begin", "calls_section_end", "call_begin", "call_end")),
    "<|tool_call_argument_begin|>",
)
_MISTRAL_TOKENS = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[ARGS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[THINK]", "[/THINK]"),
)
_markup = vocabularies.markup_tokenizer
CALLING = [
    Family(
        "qwen-3",
        vocabularies.byte_level_tokenizer,
        tool_templates.QWEN_3,
        calls="hermes",
        switch="enable_thinking",
        turn=IM_TURN,
        drops_reasoning="when the user speaks",
    ),
    Family(
        "qwen-3-untagged",
        vocabularies.starter_tokenizer,
        tool_templates.QWEN_3,
        calls="hermes",
        switch="enable_thinking",
        turn=IM_TURN,
        drops_reasoning="when the user speaks",
    ),
    Family(
        "llama-3.1",
        vocabularies.byte_level_tokenizer,
        tool_templates.LLAMA_31,
        trims=True,
        calls="llama3",
        turn="<|start_header_id|>assistant",
    ),
    Family(
        "mistral-nemo",
        vocabularies.mistral_tokenizer,
        tool_templates.MISTRAL_NEMO,
        calls="mistral",
        moves_tools="[AVAILABLE_TOOLS]",
    ),
    Family(
        "ministral",
        partial(_markup, *_MISTRAL_TOKENS, eos="</s>"),
        tool_templates.MINISTRAL,
        calls="mistral-args",
        no_thinking="[THINK]\n\n[/THINK]\n\n",
    ),
    Family(
        "deepseek-3.1",
        partial(_markup, *_DEEPSEEK_TOKENS, tags=("<think>", "</think>"), eos=_DEEPSEEK_TOKENS[1]),
        tool_templates.DEEPSEEK_31,
        calls="deepseek-3.1",
        switch="thinking",
        turn=_DEEPSEEK_TOKENS[3],
        drops_reasoning="at once",
    ),
    Family(
        "glm-4.6",
        partial(_markup, *_GLM_TOKENS, tags=_GLM_TAGS, eos="<|user|>"),
        tool_templates.GLM_46,
        calls="glm",
        switch="enable_thinking",
        turn="<|assistant|>",
        drops_reasoning="when the user speaks",
    ),
    Family(
        "harmony",
        partial(_markup, *(f"<|{name}|>" for name in _HARMONY_TOKENS), eos="<|return|>"),
        tool_templates.HARMONY,
        calls="harmony",
        before_prefill="<|channel|>final<|message|>",
        turn="<|start|>assistant",
        drops_reasoning="when it has answered",
    ),
    Family(
        "qwen-coder",
        vocabularies.byte_level_tokenizer,
        tool_templates.QWEN_CODER,
        calls="qwen-coder",
        turn=IM_TURN,
    ),
    Family(
        "qwen-3.5",
        vocabularies.byte_level_tokenizer,
        tool_templates.QWEN_35,
        calls="qwen-coder",
        turn=IM_TURN,
    ),
    Family(
        "kimi",
        partial(_markup, *_KIMI_TOKENS, eos="[EOS]"),
        tool_templates.KIMI,
        calls="kimi",
        turn="<|im_assistant|>assistant<|im_middle|>",
    ),
    Family(
        "minimax",
        partial(
            _markup,
            *("]!p~[", "]~!b[", "]~b]", "[e~["),
            tags=("<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"),
            eos="[e~[",
        ),
        tool_templates.MINIMAX,
        calls="minimax",
        no_thinking="\n</think>\n\n",
        turn="]~b]ai\n",
        drops_reasoning="when the user speaks",
    ),
]
"""Families that call tools. Their templates write calls, results and reasoning, each in its own way."""
FAMILIES += CALLING
