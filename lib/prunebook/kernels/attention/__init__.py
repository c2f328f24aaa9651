"""Attention over a pruned key-value cache: masses, decoding, compaction, noise."""
