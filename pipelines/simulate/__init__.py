"""Writes made-up Hive homes for the demo, the tests and load runs, each with its exact truth.

Nothing here reads a home, talks to a device or knows the contract.
"""
