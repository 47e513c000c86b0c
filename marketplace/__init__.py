"""The market: Django, and everything that remembers."""
