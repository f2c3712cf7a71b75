"""Billing: what finance receives. First form: the daily export of quantities and reported cost.

Does not belong here: counting (models/), scheduling (defs/).
"""
