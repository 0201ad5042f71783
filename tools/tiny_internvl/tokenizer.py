"""A small byte-level BPE tokenizer with a family's special tokens (InternVL's by default) and ChatML."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMG_START, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
SPECIAL_TOKENS = (PAD, IM_START, IM_END, IMG_START, IMG_END, IMG_CONTEXT)
#: Of Qwen's vocabularies: stands for the visual tokens of videos where a vocabulary has it.
VIDEO_PAD = "<|video_pad|>"

MERGES = 128
"""Learnt merges on top of the 256 bytes."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TRAINING_TEXT = """\
system user assistant
You are a helpful assistant that answers questions about an image.
<image> <image> <image>
What is written on the sign? What is the name of the shop on the left?
How many people are in the picture? How many of them are wearing a hat?
What colour is the car next to the tree? Is the door open or closed?
Read the number on the back of the shirt. What time does the clock show?
Answer the question using a single word or phrase.
Answer with the letter of the correct option. Describe the image in detail.
Which of the two images has more red shapes? Where is the small blue circle?
The sign says stop. The clock shows ten past two. There are three people in the picture.
The car is green and the tree is tall. Both images show a street in the rain.
Yes, it is. No, there is nothing there. It is on the right, above the table.
One two three four five six seven eight nine ten. 0 1 2 3 4 5 6 7 8 9 10 20 30 2024.
"""


def train(
    text: str = TRAINING_TEXT, merges: int | None = MERGES, special: Sequence[str] = SPECIAL_TOKENS
) -> Tokenizer:
    """Train the tokenizer. The result depends on nothing but the arguments.

    Args:
        merges: how many; None makes every word of the text one token and every digit a token of its own.
        special: special tokens; ``PAD`` and ``IM_END`` among them.
    """
    tokenizer = Tokenizer(models.BPE())
    # vLLM looks for the tokens of "<image>" inside the tokens of the prompt, so no merge
    # may cross its borders, whatever the user writes around it.
    steps = [pre_tokenizers.Split(Regex("<image>"), behavior="isolated")]
    if merges is None:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + (10_000 if merges is None else merges),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    assert merges is None or tokenizer.get_vocab_size() == 256 + merges, "the training text is too short"
    # Added after training, so that special tokens get the last ids, as in InternVL.
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in special])
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> list[str]:
    """Special tokens, by ascending id."""
    added = tokenizer.get_added_tokens_decoder()
    return [added[index].content for index in sorted(added) if added[index].special]


def plain_text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of learnt entries that decode to printable ASCII on their own."""
    special = special_tokens(tokenizer)
    learnt = ((piece, index) for piece, index in tokenizer.get_vocab().items() if piece not in special)
    return [index for piece, index in learnt if is_plain_text(piece)]


def is_plain_text(piece: str) -> bool:
    """Whether a vocabulary entry decodes to printable ASCII on its own."""
    text = decoders.ByteLevel().decode([piece])
    return text.isascii() and text.isprintable()


def write(tokenizer: Tokenizer, directory: Path, max_length: int, chat_template: str = CHAT_TEMPLATE) -> None:
    """Write the files that `AutoTokenizer.from_pretrained` reads."""
    tokenizer.save(str(directory / "tokenizer.json"))
    others = [token for token in special_tokens(tokenizer) if token not in (PAD, IM_END)]
    special = {"eos_token": IM_END, "pad_token": PAD, "additional_special_tokens": others}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "chat_template": chat_template,
        **special,
    }
    (directory / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
