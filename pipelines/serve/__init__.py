"""A read-only HTTP API over published data: `apiary serve`.

Does not belong here: the warehouse; it has one writer, and nothing here opens it.
"""
