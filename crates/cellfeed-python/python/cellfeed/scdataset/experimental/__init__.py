"""Suggestions for parameters, under the name that scDataset gives them."""

from .auto_config import estimate_sample_size, suggest_parameters

__all__ = ["estimate_sample_size", "suggest_parameters"]
