"""What a page calls to show claims, tables and sources; needs no torch."""
