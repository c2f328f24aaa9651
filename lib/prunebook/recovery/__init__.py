"""Recovery: what is trained after a cut, or together with it."""
