"""The Unreasonable Ineffectiveness of the Deeper Layers."""

from .method import DeeperLayers

__all__ = ["DeeperLayers"]
