"""scDataset's public names, on Cellfeed's code.

Change ``from scdataset import ...`` into ``from cellfeed.scdataset import ...``. For a seed,
samples come in the order in which scDataset 0.3.0 gives them, except where that is a defect.
``docs/scdataset.md`` lists what differs.
"""

from .experimental import estimate_sample_size, suggest_parameters
from .multiindexable import MultiIndexable
from .scdataset import scDataset
from .strategy import (
    BlockShuffling,
    BlockWeightedSampling,
    ClassBalancedSampling,
    SamplingStrategy,
    Streaming,
)
from .transforms import adata_to_mindex, bionemo_to_tensor, hf_tahoe_to_tensor

__all__ = [
    "BlockShuffling",
    "BlockWeightedSampling",
    "ClassBalancedSampling",
    "MultiIndexable",
    "SamplingStrategy",
    "Streaming",
    "adata_to_mindex",
    "bionemo_to_tensor",
    "estimate_sample_size",
    "hf_tahoe_to_tensor",
    "scDataset",
    "suggest_parameters",
]
