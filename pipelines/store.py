"""The object store that device and warehouse both speak to: create-only puts, gets, listings.

A local folder and any S3-compatible server behave alike: an object is created whole or not at all and is never
replaced. Does not belong here: what the keys mean (contract/keys.py), trying a put again (device/retry.py).
"""

import base64
import errno
import hashlib
import os
import random
import secrets
import stat
import time
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import private_folder, sync_folder


class StoreUnavailableError(ExpectedError):
    """The store did not answer or asked to come back later: try again.

    `retry_after`: after how many seconds it asked to be asked again, if it did. `is_about_checksum`: it received other
    bytes than those whose hash it was told.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, is_about_checksum: bool = False) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.is_about_checksum = is_about_checksum


class StoreRefusedError(ExpectedError):
    """The store answered and said no to whoever asks like this: credentials or the bucket's name must be mended."""


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
    clock_offset: float | None
    """How many seconds the store's clock was ahead of this machine's at the last answer; None if it has not said."""
    passed_over: dict[str, str]
    """What listings and gets found where an object belongs and is none, by key (escaped): `link`, `fifo`, `socket`,
    `device`, `unreadable`, `name not UTF-8`. A bucket holds nothing but objects."""

    def put(self, key: str, data: bytes) -> Put:
        """Create an object; an existing one stays as it is. Raises StoreUnavailableError, StoreRefusedError."""

    def takes_carelessly(self, key: str, data: bytes, *, overwrites: bool) -> bool:
        """For a probe of a careless store: whether it lets an existing object be replaced by a put without a condition
        (`overwrites`), or else takes a new one under a wrong checksum. Raises StoreUnavailableError."""

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object. Raises KeyError if there is none, TooLargeError if it has more than `limit`."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins with `prefix`, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object and all its versions; one that is not there is no error. Raises StoreRefusedError."""


# Opening a FIFO would wait for a writer, and a link may lead out of the store.
_OPEN_OBJECT = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM)


class FolderStore:
    """A folder as a store. Write aside, then link: the link fails if the object exists, and is whole if it succeeds.

    Objects are regular files that can be read; whatever else lies in the folder is passed over and told.
    """

    connections = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()
        self.clock_offset: float | None = None
        self.passed_over: dict[str, str] = {}

    def put(self, key: str, data: bytes) -> Put:
        """Create an object."""
        target = self.root / key
        if self._exists(target):
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
                    self._exists(target)
                    return Put.EXISTED
            finally:
                with suppress(FileNotFoundError):
                    aside.unlink()
            fp("store.linked")
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailableError(f"the store {self.url} cannot be written: {error.strerror}") from error
        return Put.CREATED

    def takes_carelessly(self, key: str, data: bytes, *, overwrites: bool) -> bool:
        """Never: there is no other way to put than the one above."""
        return False

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object."""
        try:
            with open(os.open(self.root / key, _OPEN_OBJECT), "rb") as file:  # noqa: PTH123 - Path.open takes no flags
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise KeyError(key)
                data = file.read() if limit is None else file.read(limit + 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                self._pass_over(key, "unreadable")  # one file that is not readable must not stop the others
            if error.errno in _NO_OBJECT:
                raise KeyError(key) from None
            raise StoreUnavailableError(f"the store {self.url} cannot be read: {error.strerror}") from error
        if limit is not None and len(data) > limit:
            raise TooLargeError(f"an object of the store {self.url} has more than {limit} bytes")
        return data

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins with `prefix`, in key order."""
        folder = self.root / prefix
        within = [path for path in (folder, *folder.parents) if path != self.root and path.is_relative_to(self.root)]
        if linked := next((path for path in within if path.is_symlink()), None):
            self._pass_over(str(linked.relative_to(self.root)), "link")
        elif folder.is_dir():
            try:
                os.listdir(folder)  # noqa: PTH208 - a folder that cannot be read is not an empty one
            except OSError as error:
                raise StoreUnavailableError(f"the store {self.url} cannot be read: {error.strerror}") from error
            yield from self._walk(prefix and prefix.rstrip("/") + "/")

    def delete(self, key: str) -> None:
        """Remove an object, and the folders that it leaves empty."""
        path = self.root / key
        try:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's object is in it, or it is gone
                while (path := path.parent) != self.root:
                    path.rmdir()
        except PermissionError as error:
            raise StoreRefusedError(f"the store {self.url} does not let {key} be removed: {error.strerror}") from error
        except OSError as error:
            raise StoreUnavailableError(f"the store {self.url} cannot be written: {error.strerror}") from error

    def _walk(self, folder: str) -> Iterator[Entry]:
        # One look at a folder tells files from folders: a landing may hold a hundred thousand of them.
        try:
            with os.scandir(self.root / folder) as found:
                entries = {entry.name + "/" * entry.is_dir(follow_symlinks=False): entry for entry in found}
        except FileNotFoundError:
            return  # removed meanwhile
        except OSError:
            self._pass_over(folder, "unreadable")
            return
        for name in sorted(entries):  # in key order: `a-b` stands before `a/b`
            if not _is_utf8(name):
                self._pass_over(folder + name, "name not UTF-8")
            elif name.endswith("/"):
                yield from self._walk(folder + name)
            else:
                try:
                    found_status = entries[name].stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(found_status.st_mode):
                    self._pass_over(folder + name, _kind(found_status.st_mode))
                    continue
                received = datetime.fromtimestamp(found_status.st_mtime_ns // 1000 / 1_000_000, UTC)
                yield Entry(folder + name, found_status.st_size, received)

    def _exists(self, target: Path) -> bool:
        """Whether an object is there. Raises StoreUnavailableError if something else is: an object could not be put."""
        try:
            mode = target.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreUnavailableError(f"the store {self.url} cannot be written: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise StoreUnavailableError(
                f"the store {self.url} holds a {_kind(mode)} where an object belongs: remove {target}"
            )
        return True

    def _pass_over(self, key: str, kind: str) -> None:
        self.passed_over[key.encode("utf-8", "backslashreplace").decode()] = kind


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(mode: int) -> str:
    """What stands in the place of a file."""
    kinds = {stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "device")


# A server that is not there is known within ten seconds; one that hangs in mid-answer costs a minute.
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
READ_TRIES = 3  # reading again is harmless; a put is tried again by whoever keeps count of it (device/retry.py)
_CREDENTIALS_AT_FAULT = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed")
# Answers of 400 that are about the way here, not about the object.
_CHECKSUM_AT_FAULT = ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
_TRANSIT_AT_FAULT = ("RequestTimeout", "IncompleteBody", *_CHECKSUM_AT_FAULT)


class S3Store:
    """A bucket of an S3-compatible server.

    Endpoint and credentials come from the usual AWS variables, or from a file as they are kept in `~/.aws`:
    `[default]` with `aws_access_key_id`, `aws_secret_access_key` and, where needed, `aws_session_token`, `region` and
    `endpoint_url`.
    """

    connections = 16

    def __init__(self, bucket: str, prefix: str, credentials: Path | None = None) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.clock_offset: float | None = None
        self.passed_over: dict[str, str] = {}
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._credentials = credentials
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            import boto3
            from botocore.config import Config

            from pipelines.signing import SIGNATURE

            config = Config(
                connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1},
                signature_version=SIGNATURE,
            )  # fmt: skip
            given = read_credentials(self._credentials) if self._credentials else {}
            endpoint = given.pop("endpoint_url", None)
            self._made = boto3.Session(**given).client("s3", config=config, endpoint_url=endpoint)
        return self._made

    def put(self, key: str, data: bytes) -> Put:
        """Create an object, unless the server says that it exists (412)."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            answer = self._call("put_object", Key=self._prefix + key, Body=data, IfNoneMatch="*", ChecksumSHA256=digest)
        except _ExistsError:
            return Put.EXISTED
        if not _proves(answer, data, digest):
            # A hotel's login page answers 200 to everything.
            raise StoreUnavailableError(f"what answers for the store {self.url} is not the store: it proves nothing")
        return Put.CREATED

    def takes_carelessly(self, key: str, data: bytes, *, overwrites: bool) -> bool:
        """Whether the server takes a put that these credentials and this server should not let through."""
        right = hashlib.sha256(data).digest()
        digest = base64.b64encode(right if overwrites else bytes(reversed(right))).decode()
        condition: dict[str, Any] = {} if overwrites else {"IfNoneMatch": "*"}
        try:
            self._call("put_object", Key=self._prefix + key, Body=data, ChecksumSHA256=digest, **condition)
        except (StoreRefusedError, _ExistsError):
            return False
        except StoreUnavailableError as error:
            if error.is_about_checksum:
                return False
            raise
        return True

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

    def delete(self, key: str) -> None:
        """Remove an object and every version of it that the server has kept."""
        name = self._prefix + key
        after: dict[str, Any] = {}
        versions: list[str] = []
        while True:
            page = self._call("list_object_versions", Prefix=name, **after)
            listed = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            versions += [item.get("VersionId") or "null" for item in listed if item["Key"] == name]
            if not page.get("IsTruncated"):
                break
            after = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
        for version in versions:
            # Without a version's name a server that keeps versions would only put a mark on top of them; `null` is the
            # one that was put before it kept any.
            self._call("delete_object", Key=name, VersionId=version)

    def _call(self, operation: str, *, limit: int | None = None, **arguments: Any) -> Any:
        """One operation: signed again once if the clock was at fault or the credentials may have been renewed."""
        has_corrected = has_refreshed = False
        tries = 0
        while True:
            tries += 1
            try:
                return self._ask(operation, limit, arguments)
            except _SkewedError as error:
                if has_corrected:
                    raise StoreUnavailableError(str(error)) from None
                has_corrected = True
            except _DeniedError as error:
                if has_refreshed:
                    raise StoreRefusedError(str(error)) from None
                has_refreshed, self._made = True, None  # a new session reads files and roles again
            except StoreUnavailableError:
                if operation == "put_object" or tries >= READ_TRIES:
                    raise
                time.sleep(0.2 * 4**tries * random.random())  # noqa: S311 - jitter, no secret

    def _ask(self, operation: str, limit: int | None, arguments: dict[str, Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            answer = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
            self._note_clock(answer)
            if operation != "get_object":
                return answer
            # The body is read here: a connection that breaks half-way is no other trouble than one that never came.
            return self._bounded(answer, limit)
        except ClientError as error:
            self._note_clock(error.response)
            raise self._trouble(operation, arguments, error.response) from None
        # ValueError: an endpoint that is no address. ResponseParserError: the answer is no server's of this kind.
        except (BotoCoreError, ResponseParserError, ValueError, OSError) as error:
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

    def _note_clock(self, answer: dict[str, Any]) -> None:
        from pipelines.signing import ahead_of_us

        ahead = ahead_of_us(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        if ahead is not None:
            self.clock_offset = ahead.total_seconds()

    def _trouble(self, operation: str, arguments: dict[str, Any], response: dict[str, Any]) -> Exception:
        """What an answer that is no success means."""
        from pipelines.signing import SKEWED, correct

        facts = response.get("ResponseMetadata", {})
        status, headers = int(facts.get("HTTPStatusCode", 0)), facts.get("HTTPHeaders", {})
        code = str(response.get("Error", {}).get("Code", ""))
        said = f"the store {self.url} refused {operation}: {status} {code}"
        if status == 412:
            return _ExistsError()
        if operation == "get_object" and code in ("NoSuchKey", "404"):
            return KeyError(arguments.get("Key", ""))
        if code == SKEWED or (status in (400, 403) and correct(headers)):
            correct(headers)
            return _SkewedError(said)
        if status in (401, 403) or code in _CREDENTIALS_AT_FAULT:
            return _DeniedError(said)
        # 400 without an S3 error in it comes from something on the way: no reason to give an object up.
        is_about_object = status in (400, 411) and code not in ("", "400", "411", "Bad Request", *_TRANSIT_AT_FAULT)
        if status == 413 or is_about_object:
            return StoreRejectedError(said)
        if status == 404 or code == "PermanentRedirect":
            return StoreRefusedError(said)
        text = f"the store {self.url} answered {status} {code}"
        is_about_checksum = code in _CHECKSUM_AT_FAULT
        return StoreUnavailableError(text, retry_after=_retry_after(headers), is_about_checksum=is_about_checksum)


class _SkewedError(Exception):
    pass


class _DeniedError(Exception):
    pass


class _ExistsError(Exception):
    pass


def _proves(answer: dict[str, Any], data: bytes, sha256: str) -> bool:
    """Whether an answer to a put is that of a store that holds these bytes: by the checksum it was given, by the MD5
    that an ETag usually is, or (where objects are encrypted and an ETag is neither) by an empty answer with an ETag."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if "x-amz-checksum-sha256" in headers:
        return bool(headers["x-amz-checksum-sha256"] == sha256)
    etag = headers.get("etag", "").strip('"')
    if etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
        return True
    is_encrypted = any(name.startswith("x-amz-server-side-encryption") for name in headers)
    return bool(etag) and is_encrypted and headers.get("content-length", "0") == "0"


def _retry_after(headers: dict[str, str]) -> float | None:
    """The seconds of a Retry-After header, which may name a time instead."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def read_credentials(path: Path) -> dict[str, str]:
    """The `[default]` section of a credentials file, in the words of a boto3 session. Raises StoreRefusedError."""
    found = ConfigParser(interpolation=None)
    try:
        found.read_string(path.read_text("utf-8"))
        section = found["default"]
        given = {name: section[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
    except (OSError, ValueError, ConfigError, KeyError):
        raise StoreRefusedError(
            f"{path} holds no credentials: it needs [default] with aws_access_key_id and aws_secret_access_key"
        ) from None
    given |= {name: section[name] for name in ("aws_session_token", "endpoint_url") if name in section}
    return given | ({"region_name": section["region"]} if "region" in section else {})


def open_store(url: str, *, credentials: Path | None = None) -> Store:
    """The store behind `file:///folder` or `s3://bucket/prefix`. Raises ValueError for any other address.

    `credentials`: a file to take the place of the AWS variables.
    """
    parts = urlparse(url)
    if parts.scheme == "file" and parts.path:
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"), credentials)
    raise ValueError(f"invalid store URL {url!r}: expected file:///path or s3://bucket/prefix")
