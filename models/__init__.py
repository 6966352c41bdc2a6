"""The TAM-ULAG model, its text encoder, its training and its evaluation."""

from .nn.encoder import Ticks
from .nn.tam_ulag import MODALITIES, ModelConfig, Output, State, TamUlag
from .runtime.checkpoint import load, save

__all__ = ["MODALITIES", "ModelConfig", "Output", "State", "TamUlag", "Ticks", "load", "save"]
