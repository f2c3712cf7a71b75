"""One way to break the program on purpose.

Does not belong here: which ones there are (the catalogs beside), applying them (bench/mutants.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of one text of a file, and the test that must fail with it.

    `file`: relative to the repository. `old` must stand in it exactly once.
    """

    name: str
    file: str
    old: str
    new: str
    found_by: str
