"""K-prune."""
