"""Families of models, as far as rendering goes: a chat template and a tokenizer that belong together.

The templates are written for these tests; each does what well-known ones of its name do to messages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import vocabularies

from commonweight.prompting import Renderer, Tokenizer
from commonweight.prompting.template import ChatTemplate

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

QWEN_3 = """\
{%- set ns = namespace(last=messages | length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.searching and message.role == 'user' and not (message.content.startswith('<tool_response>')
            and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = messages | length - loop.index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and reasoning %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' }}
            {{- content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

ZEPHYR = """\
{%- for message in messages %}
    {{- '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>' + '\n' }}
    {%- if loop.last and add_generation_prompt %}{{ '<|' + 'assistant' + '|>\n' }}{% endif %}
{%- endfor %}"""

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
        """What the template alone makes of turns, each a role and a text."""
        assert self.template_source is not None
        tokenizer = self.tokenizer
        assert tokenizer.bos_id is not None
        assert tokenizer.eos_id is not None
        bos_token, eos_token = tokenizer.text_of(tokenizer.bos_id), tokenizer.text_of(tokenizer.eos_id)
        template = ChatTemplate(self.template_source, bos_token=bos_token, eos_token=eos_token)
        return template.render([{"role": role, "content": text} for role, text in turns])


@cache
def _renderer(family: Family) -> Renderer:
    return Renderer(family.tokenizer, family.template_source)


STARTER = Family(
    "starter", vocabularies.starter_tokenizer, vocabularies.starter_gguf().metadata["tokenizer.chat_template"]
)
UNTOLD = Family("untold", vocabularies.starter_tokenizer, None)
FAMILIES = [
    STARTER,
    Family("chatml", vocabularies.byte_level_tokenizer, CHATML),
    Family("chatml-mistral", vocabularies.mistral_tokenizer, CHATML),
    Family("llama-3", vocabularies.byte_level_tokenizer, LLAMA_3, trims=True),
    Family("gemma", vocabularies.gemma_tokenizer, GEMMA, trims=True, takes_system=False),
    Family("mistral", vocabularies.mistral_tokenizer, MISTRAL),
    Family("qwen-3", vocabularies.byte_level_tokenizer, QWEN_3),
    Family("qwen-3-untagged", vocabularies.starter_tokenizer, QWEN_3, cuts=True),
    Family("zephyr", vocabularies.phi_tokenizer, ZEPHYR, trims=True),
    Family("smol-3", vocabularies.starter_tokenizer, SMOL_3, cuts=True),
]
"""Families that have a template."""
