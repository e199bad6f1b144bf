"""A random two-layer Llama with a byte-level tokenizer and a ChatML template, made in well under a second without any
download, so that the whole path runs in tests. `python tests/pico.py FOLDER [SEED]` makes one by hand.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Merges make some texts tokenize shorter than their bytes, so that token boundaries matter in tests.
WORDS = (" the", " and", " you", " are", "You", " is", " a", " of", " to", "ing", " in", "user", "assistant", "system")
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token ids and merges: the special tokens, the 256 bytes, then the prefixes of WORDS."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *sorted(ByteLevel.alphabet())))}
    merges = []
    for word in (w.replace(" ", "\u0120") for w in WORDS):
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    return vocabulary, merges


def make(folder: Path, seed: int = 0, tied: bool = True, width: int = 32) -> Path:
    """Write the model as safetensors (fp32, about 27 thousand parameters) with its tokenizer; equal seeds give equal
    bytes. `tied`: the output layer is the embedding. `width`: between the layers, of four heads. Returns `folder`,
    which serves as a `path` model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary, merges = _vocabulary()
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        initializer_range=0.25
        * (32 / width) ** 0.5,  # wide, so that greedy answers differ between prompts instead of repeating one byte
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=config.max_position_embeddings,
    )
    tokenizer.chat_template = TEMPLATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sums(manifest: Path) -> Path:
    """Write the sha256 of its files into the manifest of a model or a fit, as fetching and training do."""
    made = json.loads(manifest.read_text())
    model = made["kind"] == "model"
    files = sorted((manifest.parent if model else manifest.parent / "weights").iterdir())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path != manifest}
    manifest.write_text(json.dumps({**made, "files" if model else "weights": found}))
    return manifest


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
