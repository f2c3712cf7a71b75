"""The object store that device and warehouse both speak to: create-only puts, gets, listings.

A local folder and any S3-compatible server behave alike: an object is created whole or not at all and is never
replaced. Does not belong here: what the keys mean (contract/keys.py), retrying (device/ship.py).
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import private_folder, sync_folder


class StoreUnavailableError(ExpectedError):
    """The store did not answer or asked to come back later: try again."""


class StoreRefusedError(ExpectedError):
    """The store answered and said no: trying again changes nothing."""


class TooLargeError(StoreRefusedError):
    """An object is larger than its reader allows; it was not read."""


class StoreRejectedError(StoreRefusedError):
    """The store will never take this object, whoever sends it: too large, or malformed."""


class Put(Enum):
    """What a put did. Both mean that the object is there: its key binds its content."""

    CREATED = "created"
    EXISTED = "existed"


@dataclass(frozen=True)
class Entry:
    """One object of a listing; `received_at` is the store's clock."""

    key: str
    size: int
    received_at: datetime


class Store(Protocol):
    """An object store. `connections`: how many objects may be got at once, where waiting is what takes the time."""

    url: str
    connections: int

    def put(self, key: str, data: bytes) -> Put:
        """Create an object; an existing one stays as it is. Raises StoreUnavailableError, StoreRefusedError."""

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object. Raises KeyError if there is none, TooLargeError if it has more than `limit`."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins with `prefix`, in key order."""


class FolderStore:
    """A folder as a store. Write aside, then link: the link fails if the object exists, and is whole if it succeeds."""

    connections = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    def put(self, key: str, data: bytes) -> Put:
        """Create an object."""
        target = self.root / key
        if target.exists():
            return Put.EXISTED
        try:
            private_folder(target.parent)
            aside = private_folder(self.root / ".aside") / secrets.token_hex(8)
            try:
                with aside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                fp("store.written")
                try:
                    os.link(aside, target)
                except FileExistsError:
                    return Put.EXISTED
            finally:
                with suppress(FileNotFoundError):
                    aside.unlink()
            fp("store.linked")
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailableError(f"the store {self.url} cannot be written: {error.strerror}") from error
        return Put.CREATED

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object."""
        try:
            with (self.root / key).open("rb") as file:
                data = file.read() if limit is None else file.read(limit + 1)
        except FileNotFoundError:
            raise KeyError(key) from None
        except OSError as error:
            raise StoreUnavailableError(f"the store {self.url} cannot be read: {error.strerror}") from error
        if limit is not None and len(data) > limit:
            raise TooLargeError(f"an object of the store {self.url} has more than {limit} bytes")
        return data

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins with `prefix`, in key order."""
        yield from self._walk(self.root / prefix)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        if not folder.is_dir():
            return
        # In key order: `a-b` stands before `a/b`.
        for path in sorted(folder.iterdir(), key=lambda path: path.name + "/" * path.is_dir()):
            if path.is_dir():
                yield from self._walk(path)
            else:
                stat = path.stat()
                received = datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1_000_000, UTC)
                yield Entry(path.relative_to(self.root).as_posix(), stat.st_size, received)


class S3Store:
    """A bucket of an S3-compatible server. Endpoint and credentials come from the usual AWS variables."""

    connections = 16

    def __init__(self, bucket: str, prefix: str) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
            self._made = boto3.Session().client("s3", config=config)
        return self._made

    def put(self, key: str, data: bytes) -> Put:
        """Create an object, unless the server says that it exists (412)."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            self._call(
                "put_object", Key=self._prefix + key, Body=data, IfNoneMatch="*", ChecksumSHA256=digest
            )  # fmt: skip
        except _ExistsError:
            return Put.EXISTED
        return Put.CREATED

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object."""
        body: bytes = self._call("get_object", limit=limit, Key=self._prefix + key)
        return body

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins with `prefix`, in key order."""
        after: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=self._prefix + prefix, **after)
            for item in page.get("Contents", ()):
                yield Entry(item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, operation: str, *, limit: int | None = None, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
            if operation != "get_object":
                return answer
            # The body is read here: a connection that breaks half-way is no other trouble than one that never came.
            return self._bounded(answer, limit)
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
            if status == 412:
                raise _ExistsError from None
            if code in ("NoSuchKey", "404"):
                raise KeyError(arguments.get("Key", "")) from None
            if status in (409, 429) or status >= 500:
                raise StoreUnavailableError(f"the store {self.url} answered {status} {code}") from None
            refused = StoreRejectedError if status in (400, 411, 413) else StoreRefusedError
            raise refused(f"the store {self.url} refused {operation}: {status} {code}") from None
        except (BotoCoreError, ValueError, OSError) as error:  # ValueError: an endpoint that is no address
            reason = type(error).__name__
            raise StoreUnavailableError(f"the store {self.url} cannot be reached: {reason}") from None

    def _bounded(self, answer: Any, limit: int | None) -> bytes:
        """The body of an answer. Its length is the server's word: what is read is bounded too."""
        if limit is None:
            return bytes(answer["Body"].read())
        data = answer["Body"].read(limit + 1) if answer["ContentLength"] <= limit else b""
        if answer["ContentLength"] > limit or len(data) > limit:
            answer["Body"].close()
            raise TooLargeError(f"an object of the store {self.url} has more than {limit} bytes")
        return bytes(data)


class _ExistsError(Exception):
    pass


def open_store(url: str) -> Store:
    """The store behind `file:///folder` or `s3://bucket/prefix`. Raises ValueError for any other address."""
    parts = urlparse(url)
    if parts.scheme == "file" and parts.path:
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"))
    raise ValueError(f"{url!r} is no store: name file:///folder or s3://bucket/prefix")
