"""Format of Seed-OSS: like Qwen 3 Coder, with other tags.

Source: https://huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct
"""

from commonweight.prompting.formats.syntax import ArgumentMarkup, ToolCallFormat

SEED = ToolCallFormat(
    name="seed",
    trigger="<seed:tool_call>",
    before_name="<seed:tool_call>\n<function=",
    before_input=">\n",
    after_input="</function>\n</seed:tool_call>",
    between="\n",
    arguments=ArgumentMarkup("<parameter=", ">", "</parameter>\n"),
)
