"""How sparse weights are stored."""
