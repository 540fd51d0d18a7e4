"""The starter model as vLLM takes it: its weights in full, and its tokenizer. Runs in vLLM's own environment.

usage: weights.py STARTER.gguf FOLDER
"""

import sys
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, folder = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(
    source.parent,
    gguf_file=source.name,
    quantization_config=GgufConfig(dequantize=True),
    dtype=torch.bfloat16,
)
model.save_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
# What the file calls "smollm" cuts every digit off, which the conversion does not know.
tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
    [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
)
tokenizer.save_pretrained(folder)
