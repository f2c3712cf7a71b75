"""Gates: a suite in YAML and the warehouse in, a list of results out.

Does not belong here: tests between the edges (dbt), stopping a run (defs/).
"""
