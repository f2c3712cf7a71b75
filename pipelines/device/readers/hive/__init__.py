"""Hive's homes: queens, workers, colonies and graph runs."""
