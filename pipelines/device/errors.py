"""What a person sees when the device part cannot go on: one line, what is wrong, what to do.

Does not belong here: outcomes of single files or batches; those are counted, not raised.
"""


class UsageError(Exception):
    """Wrong use, or consent is missing: exit code 2."""


class DeviceError(Exception):
    """The work could not be done: exit code 1. Nothing is lost by it."""
