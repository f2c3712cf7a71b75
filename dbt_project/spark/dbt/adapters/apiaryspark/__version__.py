"""dbt prints it."""

version = "1.11.0"
