"""Comparing prompts: tokenizer and chat template of a model folder with those of its GGUF file."""

import ctypes
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer as FolderTokenizer
from transformers import AutoTokenizer

from commonweight.catalog.gguf import Gguf
from commonweight.llamacpp import api as llama
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.workshop.export.samples import make_conversations, make_texts
from commonweight.workshop.export.settings import ExportError


class TokenizerParity(BaseModel):
    """Texts whose tokens are those of the model folder's ``tokenizer.json``."""

    model_config = ConfigDict(frozen=True)

    texts: int
    llama_cpp: int
    """By llama.cpp, special tokens in texts included."""
    server: int
    """By the server, which takes special tokens in texts for ordinary text."""
    transformers: int
    """By the tokenizer that transformers makes of the folder."""


class TemplateParity(BaseModel):
    """Conversations whose prompts are those of the model folder's template, as transformers renders it."""

    model_config = ConfigDict(frozen=True)

    conversations: int
    """0: the model has no template."""
    server: int


def compare_tokenizers(folder: Path, exported: Path) -> TokenizerParity:
    """Tokenize texts with all tokenizers.

    Raises:
        ExportError: one of them gives other tokens.
    """
    reference = FolderTokenizer.from_file(str(folder / "tokenizer.json"))
    ordinary = FolderTokenizer.from_file(str(folder / "tokenizer.json"))
    ordinary.encode_special_tokens = True
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with closing(Gguf(exported)) as gguf:
        server = Tokenizer(gguf)
        texts = make_texts(sorted(server.special_tokens))
        different: dict[str, list[int]] = {"llama.cpp": [], "the server": [], "transformers": []}
        for number, text in enumerate(texts):
            ids = reference.encode(text).ids
            if _tokenize(gguf, text) != ids:
                different["llama.cpp"].append(number)
            if server.encode(text) != ordinary.encode(text, add_special_tokens=False).ids:
                different["the server"].append(number)
            if loaded(text)["input_ids"] != ids:
                different["transformers"].append(number)
    for name, numbers in different.items():
        if numbers:
            raise ExportError(
                f"The tokenizer of {name} gives other tokens than the model's for {len(numbers)} of {len(texts)} "
                f"texts, and must for none; the first is number {numbers[0]}."
            )
    count = len(texts)
    return TokenizerParity(texts=count, llama_cpp=count, server=count, transformers=count)


def compare_templates(folder: Path, exported: Path) -> TemplateParity:
    """Render conversations with both templates, and tokenize them.

    Raises:
        ExportError: a prompt has other tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with closing(Gguf(exported)) as gguf:
        template = gguf.metadata.get("tokenizer.chat_template")
        if template is None and tokenizer.chat_template is None:
            return TemplateParity(conversations=0, server=0)
        if template != tokenizer.chat_template:
            raise ExportError("The exported file has another chat template than the model.")
        conversations = make_conversations()
        renderer = Renderer(Tokenizer(gguf), template)
        different = [
            number
            for number, messages in enumerate(conversations)
            if renderer.render(make_request(messages)).token_ids
            != tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ]
    if different:
        raise ExportError(
            f"The server renders {len(different)} of {len(conversations)} conversations to other tokens than the "
            f"model's template, and must for none; the first is number {different[0]}."
        )
    return TemplateParity(conversations=len(conversations), server=len(conversations))


def make_request(messages: Sequence[dict[str, str]], max_tokens: int = 1) -> MessageRequest:
    """A request of a conversation, whose system text goes where the API has it."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    content = {"model": "exported", "max_tokens": max_tokens, "messages": rest}
    return MessageRequest.model_validate(content | ({"system": system[0]} if system else {}))


def _tokenize(gguf: Gguf, text: str) -> list[int]:
    """llama.cpp's tokens of a text, in which special tokens are read as such."""
    data = text.encode()
    buffer = (ctypes.c_int32 * (len(data) + 8))()
    count = llama.llama_tokenize(gguf.vocab, data, len(data), buffer, len(buffer), True, True)
    return list(buffer[:count])
