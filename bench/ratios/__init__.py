"""Processor seconds of what Apiary does, beside the least that the same data costs: `python -m bench.ratios`.

Does not belong here: whether a result is right (tests/), though every benchmark compares its sums with its floor's.
"""
