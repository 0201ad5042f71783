"""A small sentencepiece tokenizer as InternLM2's: slow, of remote code, a space in front of every text."""

import io
import json
import shutil
from functools import cached_property
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from .tokenizer import CHAT_TEMPLATE, IM_END, SPECIAL_TOKENS, TRAINING_TEXT

BOS, UNKNOWN = "<s>", "<unk>"
PIECES = 420
_CODE = "tokenization_internlm2"


class SlowTokenizer:
    """Trained on the training text; the same bytes every time. Special tokens get the last ids."""

    chat_template = "{{ bos_token }}" + CHAT_TEMPLATE

    def __init__(self, special: tuple[str, ...] = SPECIAL_TOKENS) -> None:
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING_TEXT.splitlines()), model_writer=model, model_type="bpe",
            vocab_size=PIECES, byte_fallback=True, num_threads=1, unk_piece=UNKNOWN, bos_piece=BOS,
            normalization_rule_name="identity",
            minloglevel=2,
        )  # fmt: skip
        self._bytes = model.getvalue()
        self.special = special

    @cached_property
    def _model(self) -> SentencePieceProcessor:
        return SentencePieceProcessor(model_proto=self._bytes)

    def get_vocab_size(self) -> int:
        return self._model.get_piece_size() + len(self.special)

    def token_to_id(self, token: str) -> int:
        return self._model.get_piece_size() + self.special.index(token)

    def plain_text_ids(self) -> list[int]:
        """Pieces that decode to printable ASCII on their own."""
        model = self._model
        pieces = ((index, model.id_to_piece(index)) for index in range(model.get_piece_size()))
        return [
            index
            for index, piece in pieces
            if not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
            and piece.replace("▁", " ").isascii()
        ]

    def write(self, directory: Path, max_length: int, chat_template: str) -> None:
        """Write the files that `AutoTokenizer.from_pretrained` reads with `trust_remote_code=True`."""
        (directory / "tokenizer.model").write_bytes(self._bytes)
        shutil.copy(Path(__file__).with_name(f"{_CODE}.py"), directory)
        added = {
            str(self.token_to_id(token)): {"content": token, "normalized": False, "special": True}
            for token in self.special
        }
        config = {
            "tokenizer_class": "InternLM2Tokenizer",
            "auto_map": {"AutoTokenizer": [f"{_CODE}.InternLM2Tokenizer", None]},
            "added_tokens_decoder": added,
            "additional_special_tokens": [token for token in self.special if token != IM_END],
            "bos_token": BOS,
            "eos_token": IM_END,
            "pad_token": self.special[0],
            "unk_token": UNKNOWN,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            "chat_template": chat_template,
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
