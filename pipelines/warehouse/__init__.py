"""The warehouse part: what arrived in the store becomes rows, published data and answers.

Does not belong here: Dagster (defs/), SQL of the models (models/), the device part.
"""
