"""Apiary: what AI agents used, counted once, without people's content."""

__version__ = "0.1.0"
