"""The pages that are made, not written."""
