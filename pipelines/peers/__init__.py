"""Other programs that count the same homes, for development: what they count otherwise, and why.

Does not belong here: anything that a device or the warehouse needs.
"""
