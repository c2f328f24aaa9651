"""The book: run the notebooks, assemble their pages, build and serve the site. Needs no torch."""
