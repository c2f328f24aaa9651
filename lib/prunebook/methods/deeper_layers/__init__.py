"""The Unreasonable Ineffectiveness of the Deeper Layers."""
