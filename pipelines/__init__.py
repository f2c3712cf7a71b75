"""Apiary: what AI agents used, counted once, without people's content."""

__version__ = "0.2.0"
