"""The device part: reads agent homes, redacts, spools and ships. It runs on the machine of the person it serves.

It imports neither the warehouse nor its stack. Does not belong here: anything that needs more than a base install.
"""
