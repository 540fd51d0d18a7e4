"""Formats of DeepSeek: V3 and R1, and V3.1 (shorter).

Source: https://huggingface.co/deepseek-ai/DeepSeek-V3.1
"""

from commonweight.prompting.formats.syntax import ToolCallFormat

DEEPSEEK = ToolCallFormat(
    name="deepseek",
    trigger="<｜tool▁calls▁begin｜>",
    opening="<｜tool▁calls▁begin｜>",
    before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    before_input="\n```json\n",
    after_input="\n```<｜tool▁call▁end｜>",
    between="\n",
    closing="<｜tool▁calls▁end｜>",
)

DEEPSEEK_31 = ToolCallFormat(
    name="deepseek-3.1",
    trigger="<｜tool▁calls▁begin｜>",
    opening="<｜tool▁calls▁begin｜>",
    before_name="<｜tool▁call▁begin｜>",
    before_input="<｜tool▁sep｜>",
    after_input="<｜tool▁call▁end｜>",
    closing="<｜tool▁calls▁end｜>",
)
