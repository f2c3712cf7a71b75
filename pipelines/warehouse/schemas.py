"""The schemas of a warehouse that the models build (dbt_project/dbt_project.yml).

Does not belong here: the wire and the books (pipelines/contract), who may read a mart (publish.py).
"""

INTERNAL = ("core", "rating", "statements", "analytics")
"""What a layer keeps to itself: read by models and by the programs that prove and close, published to nobody."""
MARTS = "marts"
OUTDATED = ("intermediate",)
"""Of releases up to 0.2.0: dropped by the first build after an upgrade, and copied by nobody."""
TABLES = (*INTERNAL, MARTS)
BUILT = ("staging", *TABLES)
