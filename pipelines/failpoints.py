"""Named points at which a test may end the process or fail: `fp("cut.assigned")` does nothing unless a hook is set.

No variable, file or option sets the hook, so nothing outside of Python code can reach it, and no code of ours does
(tests/torture/test_failpoints.py). Does not belong here: what happens at a point (bench/torture).
"""

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def fp(name: str) -> None:
    """Pass a named point."""
    if hook is not None:
        hook(name)
