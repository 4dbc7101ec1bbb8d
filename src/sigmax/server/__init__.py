"""Models behind HTTP: an API, and a page that shows what it answers."""
