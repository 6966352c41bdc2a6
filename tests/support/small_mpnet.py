"""A random MPNet of three small layers in the files of the real one, with its own tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SIZE, LAYERS, RANK = 32, 3, 2
WORDS = "a bad day did film fine good i it like not she so terrible very was wonderful un ##real"
SPECIAL = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")


def small_mpnet(folder: Path) -> Path:
    """Write `config.json`, `tokenizer.json` and `model.safetensors`; return the folder."""
    from transformers import MPNetConfig
    from transformers.models.mpnet.modeling_mpnet import MPNetModel

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS.split()))}
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 80,
        "relative_attention_num_buckets": 32,
        "layer_norm_eps": 1e-5,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(sizes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MPNetModel(MPNetConfig(**sizes), add_pooling_layer=False)
        for tensor in network.state_dict().values():
            # Larger than at the start of a training: biases and places are to matter.
            tensor.add_(torch.randn(tensor.shape), alpha=0.1)
    save_file(network.state_dict(), folder / "model.safetensors")
    _tokenizer(vocabulary, folder / "tokenizer.json")
    return folder


def _tokenizer(vocabulary: dict[str, int], path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token) for token in SPECIAL])
    tokenizer.save(str(path))
