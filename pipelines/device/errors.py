"""What the device part says when it cannot go on.

Does not belong here: outcomes of single files or batches; those are counted, not raised.
"""

from pipelines.errors import ExpectedError


class DeviceError(ExpectedError):
    """The work could not be done. Nothing is lost by it."""
