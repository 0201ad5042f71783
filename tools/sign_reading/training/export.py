"""Writes a trained model as a checkpoint in InternVL's chat format, which vLLM loads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import InternVLForConditionalGeneration

from tools.internvl_reference.native_checkpoint import chat_tensors
from tools.tiny_internvl import tokenizer as tokenizers_
from tools.tiny_internvl.chat_format import write_config, write_json

from .sizes import MAX_LENGTH, Size, config


def export(
    model: InternVLForConditionalGeneration, size: Size, tokenizer: Tokenizer, directory: Path
) -> None:
    """Write the checkpoint into `directory`. Weights are float16 on disk, which halves their size.

    The output matrix is written out although training ties it to the embeddings: vLLM 0.32 reads no tie from
    the decoder's part of a chat-format configuration and would serve with a matrix that nothing filled.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizers_.write(tokenizer, directory, MAX_LENGTH)
    write_config(directory, config(size, tokenizer))
    write_json(
        directory / "generation_config.json",
        {
            "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
            "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
        },
    )
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in chat_tensors(model).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
