"""The mutants, a catalog for each part. Does not belong here: what a mutant is (mutant.py)."""

from bench.mutations.access import ACCESS
from bench.mutations.closing import CLOSING
from bench.mutations.delivery import DELIVERY
from bench.mutations.erasure import ERASURE
from bench.mutations.money import MONEY
from bench.mutations.operation import OPERATION
from bench.mutations.privacy import PRIVACY
from bench.mutations.verification import VERIFICATION

PARTS = {
    "delivery": DELIVERY, "money": MONEY, "closing": CLOSING, "verification": VERIFICATION, "privacy": PRIVACY,
    "access": ACCESS, "erasure": ERASURE, "operation": OPERATION,
}  # fmt: skip
MUTANTS = tuple(mutant for part in PARTS.values() for mutant in part)
