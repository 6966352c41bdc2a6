"""The TAM-ULAG model, its text encoder, its training and its evaluation."""

from .checkpoint import load, save
from .encoder import Ticks
from .tam_ulag import MODALITIES, ModelConfig, Output, State, TamUlag

__all__ = ["MODALITIES", "ModelConfig", "Output", "State", "TamUlag", "Ticks", "load", "save"]
