"""Torture: a live writer, the real device program and the real ingest, killed and starved at every step.

Does not belong here: tests that are sure of their outcome in a second (tests/).
"""
