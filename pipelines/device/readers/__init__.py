"""Readers: what agent runtimes leave on disk becomes records with source values; a package for each runtime.

base.py says what a runtime is, registry.py which there are. Nothing outside this package knows a runtime's name.
Does not belong here: what becomes of a record (collect.py), what of it may leave (redact.py).
"""
