"""Hive's homes: queens, workers, colonies and graph runs.

Does not belong here: what another runtime has as well (the modules above).
"""
