"""Billing: prices, periods, and the statements that finance receives.

Does not belong here: counting (models/), scheduling (defs/).
"""
