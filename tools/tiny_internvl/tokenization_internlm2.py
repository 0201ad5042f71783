"""InternLM2's tokenizer: sentencepiece, in Python, loaded from its checkpoint's directory."""

import os
import shutil

from sentencepiece import SentencePieceProcessor
from transformers.tokenization_utils import PreTrainedTokenizer


class InternLM2Tokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file, add_bos_token=True, **kwargs):
        self.vocab_file = vocab_file
        self.add_bos_token = add_bos_token
        self.sp_model = SentencePieceProcessor(model_file=vocab_file)
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return self.sp_model.get_piece_size()

    def get_vocab(self):
        own = {self.sp_model.id_to_piece(index): index for index in range(self.vocab_size)}
        return {**own, **self.added_tokens_encoder}

    def _tokenize(self, text, **kwargs):
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index):
        return self.sp_model.id_to_piece(index)

    def convert_tokens_to_string(self, tokens):
        """Special tokens as they are, what is between them by sentencepiece."""
        text, pieces = "", []
        for token in tokens:
            if token in self.all_special_tokens:
                text += self.sp_model.decode(pieces) + token
                pieces = []
            else:
                pieces.append(token)
        return text + self.sp_model.decode(pieces)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        start = [self.bos_token_id] if self.add_bos_token else []
        return start + token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory, filename_prefix=None):
        name = f"{filename_prefix}-tokenizer.model" if filename_prefix else "tokenizer.model"
        path = os.path.join(save_directory, name)
        if os.path.abspath(path) != os.path.abspath(self.vocab_file):
            shutil.copy(self.vocab_file, path)
        return (path,)
