"""The contract: the tables a device may send. Everything else in the project derives from it or obeys it.

Does not belong here: reading, storing or moving data.
"""
