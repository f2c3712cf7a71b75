"""What a person sees when a command cannot go on: one line, what is wrong, what to do. The parts subclass these.

Does not belong here: outcomes of single files or batches; those are counted, not raised.
"""


class ExpectedError(Exception):
    """The work could not be done: exit code 1, one line, no traceback."""

    exit_code = 1


class UsageError(ExpectedError):
    """Wrong use, or consent is missing: exit code 2."""

    exit_code = 2
