"""The models on Spark: the same SQL, rewritten, and the same wire tables.

Does not belong here: the models (models/), what differs from engine to engine (dbt_project/macros/engine.sql).
"""
