"""The site: read the book once, render its pages, build and check them, serve them.

Needs no torch.
"""
