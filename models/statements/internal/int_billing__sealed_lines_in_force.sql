{{ config(materialized='view') }}

-- A line that moved to another account is gone from the one and late in the other: each has a book of its own.
{{ lines_in_force() }}
