# Copyright: (c) 2026, berth.odoo contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the OCA's fs_attachment lose nothing: attachments in S3 that cannot be read, that nobody seems to use, and those that are moved.

* fs_attachment returns nothing instead of the content when S3 refuses a request, because "no access" and "no such file" are both an OSError. Whoever
  copies or rewrites the attachment then stores nothing. Here a content is either read, or the request fails with words; only a file that is not there is empty.
* Its collector deletes what a transaction that is not committed yet has written. Here only what nobody wrote, deleted or used for a day is deleted, one object
  at a time under a lock that a writer of the same object waits for, and no table is locked.
* Its move of old attachments (``force_storage``) deletes the local files, also of attachments that it could not move, and loses its uploads when it
  fails (OCA/storage#660). It is refused.

Written for fs_attachment 19.0.1.1; what it relies on is checked when it is loaded.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from odoo import api
from odoo.addons.fs_attachment.models import fs_file_gc, ir_attachment

from .repeat import excuse

_logger = logging.getLogger(__name__)

GRACE_HOURS = 24
"""How long an object stays that nobody uses any more. More than the longest transaction."""

BATCH = 500
"""Objects that one round of the collector looks at."""

FOREIGN = ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs")
"""Packages whose errors come from S3 or the way to it. The rest of these are OSError."""

EXPECTED: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "IrAttachment._storage_file_read": (
        ir_attachment.IrAttachment._storage_file_read,
        "(self, fname: 'str', size: 'int | None' = None) -> 'bytes | None'",
        ("self._fs_parse_store_fname(fname)", "except OSError", 'return b""'),
    ),
    "IrAttachment._storage_file_write": (
        ir_attachment.IrAttachment._storage_file_write,
        "(self, bin_data: 'bytes') -> 'str'",
        (
            "self._storage()",
            "self._get_fs_storage_for_code(storage)",
            "self._get_fs_path(storage, bin_data)",
            "self._storage_write_option(fs)",
            "self._fs_mark_for_gc(fname)",
        ),
    ),
    "IrAttachment._force_storage_to_object_storage": (
        ir_attachment.IrAttachment._force_storage_to_object_storage,
        "(self, new_cr=False)",
        ("clean_fs(files_to_clean)",),
    ),
    "AttachmentFileLikeAdapter._file_open": (ir_attachment.AttachmentFileLikeAdapter._file_open, "(self) -> 'io.IOBase'", ()),
    "FsFileGC._mark_for_gc": (
        fs_file_gc.FsFileGC._mark_for_gc,
        "(self, store_fname: str) -> None",
        ("self._in_new_cursor()", "ON CONFLICT DO NOTHING"),
    ),
    "FsFileGC._gc_files": (fs_file_gc.FsFileGC._gc_files, "(self) -> None", ("self._gc_files_unsafe()",)),
}
"""Function, its arguments, and pieces of its source without which the reasoning here does not hold."""


def is_foreign(error: BaseException) -> bool:
    """Whether an error comes from S3 or the way to it, and not from Odoo or its database."""
    kinds = type(error).__mro__
    return any(kind.__module__.partition(".")[0] in FOREIGN for kind in kinds) or isinstance(error, OSError)


def guarded(function: Callable[..., Any], what: str, passed: tuple[type[Exception], ...] = ()) -> Callable[..., Any]:
    """Return the function; an error of S3 becomes one that tells the user, HTTP status 503.

    Args:
        function: what may fail.
        what: words for the user.
        passed: errors that stay as they are.
    """

    def call(*arguments: Any, **more: Any) -> Any:
        try:
            return function(*arguments, **more)
        except Exception as error:
            if isinstance(error, passed) or not is_foreign(error):
                raise
            _logger.error("The storage of attachments failed: %s: %s", type(error).__name__, " ".join(str(error).split()))
            raise excuse(f"The storage of attachments does not answer: {what} Please try again in a minute.") from error

    return call


def _storage_file_read(self: Any, fname: str, size: int | None = None) -> bytes:
    """Read a content. One that is not there is empty, as Odoo's own are."""
    system, storage, path = self._fs_parse_store_fname(fname)
    try:
        return bytes(system.cat_file(path, end=size) if size else system.cat_file(path))
    except FileNotFoundError:
        _logger.error("Attachment %s is not in storage %s", fname, storage)
        return b""


def _storage_file_write(self: Any, bin_data: bytes) -> str:
    """Write a content. Marked before, so that a collector that is about to delete the same object is waited for."""
    storage = self.env.context.get("storage_location") or self._storage()
    system = self._get_fs_storage_for_code(storage)
    path = self._get_fs_path(storage, bin_data)
    fname = f"{storage}://{path}"
    self._fs_mark_for_gc(fname)
    if parent := path.rpartition("/")[0]:
        system.makedirs(parent, exist_ok=True)
    system.pipe_file(path, bin_data, **self._storage_write_option(system))
    return fname


def _mark_for_gc(self: Any, store_fname: str) -> None:
    """Note that an object was written or lost a user just now."""
    with self._in_new_cursor() as cursor:
        cursor.execute(
            "INSERT INTO fs_file_gc (store_fname, fs_storage_code, create_date, write_date, create_uid, write_uid)"
            " VALUES (%s, %s, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', %s, %s)"
            " ON CONFLICT (store_fname) DO UPDATE SET create_date = excluded.create_date",
            (store_fname, store_fname.partition("://")[0], self.env.uid, self.env.uid),
        )


def _gc_files(self: Any) -> tuple[int, int]:
    """Delete objects that nobody has used for a day. Returns how many were looked at, and how many are left."""
    cursor = self.env.cr
    codes = tuple(self.env["fs.storage"].search([]).filtered("autovacuum_gc").mapped("code")) or ("",)
    old = f"fs_storage_code IN %s AND create_date < now() AT TIME ZONE 'UTC' - interval '{GRACE_HOURS} hours'"
    cursor.commit()
    cursor.execute(f"SELECT id, store_fname FROM fs_file_gc WHERE {old} ORDER BY id LIMIT {BATCH}", [codes])  # noqa: S608
    marks = cursor.fetchall()
    failed = 0
    for mark, fname in marks:
        # A transaction for each, so that the row's lock is short. Who writes the same object waits for it, then writes.
        cursor.commit()
        cursor.execute(f"SELECT 1 FROM fs_file_gc WHERE id = %s AND {old} FOR UPDATE SKIP LOCKED", [mark, codes])  # noqa: S608
        if not cursor.fetchone():
            continue
        cursor.execute("SELECT EXISTS (SELECT FROM ir_attachment WHERE store_fname = %s)", [fname])
        if not cursor.fetchone()[0]:
            code, _separator, path = fname.partition("://")
            try:
                self.env["fs.storage"].get_fs_by_code(code).rm_file(path)
            except FileNotFoundError:
                pass
            except Exception as error:
                if not is_foreign(error):
                    raise
                failed += 1
                _logger.warning("Object %s is not deleted yet: %s: %s", fname, type(error).__name__, error)
                continue
        cursor.execute("DELETE FROM fs_file_gc WHERE id = %s", [mark])
    cursor.commit()
    cursor.execute(f"SELECT count(*) FROM fs_file_gc WHERE {old}", [codes])  # noqa: S608
    left = cursor.fetchone()[0]
    cursor.commit()
    # What S3 does not want to delete now is tomorrow's.
    return len(marks) - failed, 0 if failed else left


def _force_storage_to_object_storage(*_arguments: Any, **_more: Any) -> None:
    """Refuse."""
    raise excuse(
        "Attachments are moved by the berth.odoo playbook site, which keeps the local files until they are known to be in S3 and afterwards. Odoo's own "
        "way would delete them."
    )


def unexpected() -> list[str]:
    """Return what is not as in the fs_attachment that this was written for, in words."""
    found = []
    for name, (function, arguments, pieces) in EXPECTED.items():
        if (signature := str(inspect.signature(function, follow_wrapped=False))) != arguments:
            found.append(f"{name} takes {signature}, expected {arguments}")
        source = inspect.getsource(function)
        found += [f"{name} does not contain {piece!r}" for piece in pieces if piece not in source]
    return found


def post_load() -> None:
    """Put the functions in place.

    Raises:
        SystemExit: fs_attachment is not as expected. Odoo logs any other error of an add-on and serves without it.
    """
    if problems := unexpected():
        raise SystemExit(
            f"berth_runtime does not fit this fs_attachment: {'; '.join(problems)}. docs/filestore.md names the version that it is made for"
        )
    attachment = ir_attachment.IrAttachment
    attachment._storage_file_read = api.model(guarded(_storage_file_read, "a file cannot be read, and nothing was changed."))
    attachment._storage_file_write = api.model(guarded(_storage_file_write, "the file was not stored, and nothing was changed."))
    attachment._force_storage_to_object_storage = api.model(_force_storage_to_object_storage)
    adapter = ir_attachment.AttachmentFileLikeAdapter
    adapter._file_open = guarded(adapter._file_open, "a file cannot be read, and nothing was changed.", (FileNotFoundError,))
    fs_file_gc.FsFileGC._mark_for_gc = api.model(_mark_for_gc)
    fs_file_gc.FsFileGC._gc_files = api.autovacuum(_gc_files)
    _logger.info("Attachments in S3 are guarded")
