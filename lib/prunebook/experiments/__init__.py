"""Methods and caches compared under one protocol."""
