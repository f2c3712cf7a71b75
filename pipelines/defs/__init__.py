"""Dagster at the edge: one thin file per stage. It is imported here and nowhere else in the project.

Does not belong here: work; that is plain functions behind the assets, tested without Dagster.
"""
