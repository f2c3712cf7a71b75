"""Readers: what agent runtimes leave on disk becomes records with source values; a package for each runtime.

base.py says what a runtime is, registry.py which there are. Nothing outside this package knows a runtime's name.
"""
