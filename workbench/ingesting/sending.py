"""Brings the files of a chunk into the inbox, de-identified where asked for."""

from __future__ import annotations

import base64
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from arrival.importing.import_job import Archive
from arrival.s3_uri import split_s3_uri
from workbench.ingesting.fate import CHANGED, NOT_THE_FILES, NOT_THE_SAME, UPLOADED, Fate, no_longer_readable
from workbench.ingesting.found import Opener
from workbench.ingesting.journal import Journal
from workbench.ingesting.watching import Watcher

if TYPE_CHECKING:
    from workbench.ingesting.deidentifying import ChunkRecords, Deidentifying

LARGE_BYTES = 256 << 20
"""A larger file is de-identified in memory one at a time, whatever the number of threads."""


class Sender:
    """Uploads chunks.

    Args:
        s3: boto3 `s3` client with the caller's rights.
        archive: Where to.
        journal: What is known of the files.
        opener: Reads them.
        pool: Whose threads upload, for all chunks together.
        deidentifying: How files are de-identified; None if they are not.
        watcher: Is told how much was sent.
        stopped: Raises when the work shall end.
    """

    def __init__(
        self,
        *,
        s3: Any,
        archive: Archive,
        journal: Journal,
        opener: Opener,
        pool: Executor,
        deidentifying: Deidentifying | None,
        watcher: Watcher,
        stopped: Callable[[], None],
    ) -> None:
        self.s3, self.archive, self.journal = s3, archive, journal
        self.opener, self.pool, self.deidentifying = opener, pool, deidentifying
        self.watcher, self.stopped = watcher, stopped
        self._one_large = threading.Lock()

    def send(self, chunk: Any) -> None:
        """Upload what is not in the inbox yet; files that cannot be read are failures of their own.

        What was de-identified is made and uploaded again after an interruption: it is the same to the byte,
        and reports and sealed records need all files of the chunk.

        Raises:
            ClientError: The inbox does not take files.
        """
        records = self.deidentifying.records() if self.deidentifying is not None else None
        rows = self.journal.all(
            "SELECT * FROM chunk_file WHERE chunk = ? AND (state = 'planned'"
            " OR (? AND state IN ('uploaded', 'quarantined'))) ORDER BY number",
            chunk["id"],
            records is not None,
        )
        uploads = [self.pool.submit(self._one, chunk["prefix"], row, records) for row in rows]
        try:
            for upload in as_completed(uploads):
                upload.result()
        finally:
            for upload in uploads:
                upload.cancel()
        if self.deidentifying is not None and records is not None:
            # Before the import: nothing that could not be traced back may be in the archive.
            for key, body in self.deidentifying.documents(records, name=chunk["id"]):
                self.s3.put_object(
                    Bucket=self.archive.import_bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256"
                )

    def _one(self, prefix: str, row: Any, records: ChunkRecords | None) -> None:
        self.stopped()
        fate = self._fate(prefix, row, records)
        self.journal.execute(
            "UPDATE chunk_file SET state = ?, kind = ?, reason = ? WHERE chunk = ? AND number = ?",
            *(fate.state, fate.kind, fate.reason, row["chunk"], row["number"]),
        )
        self.watcher.sent(1, row["size"])

    def _fate(self, prefix: str, row: Any, records: ChunkRecords | None) -> Fate:
        key = f"{prefix}{row['number']:06d}.dcm"
        try:
            if row["place"] == "s3" and records is None:
                return self._copy(row, key)
            etag = row["stamp"] if row["place"] == "s3" else ""
            with self.opener.open(row["place"], row["path"], row["member"], etag=etag) as stream:
                if self.deidentifying is None or records is None:
                    return self._put(key, stream, sha256=row["content"])
                if row["size"] > LARGE_BYTES:
                    with self._one_large:
                        return self._deidentified(key, stream, row, self.deidentifying, records)
                return self._deidentified(key, stream, row, self.deidentifying, records)
        except BotoCoreError:
            # Of the network; some are an OSError as well, and are not the file's fault.
            raise
        except (OSError, zipfile.BadZipFile) as error:
            return no_longer_readable(type(error).__name__)
        except ClientError as error:
            code = error.response["Error"].get("Code")
            if code in NOT_THE_FILES:
                raise
            if code in NOT_THE_SAME:
                return CHANGED
            refusal = self._refusal_of_source(row)
            if refusal is not None:
                return no_longer_readable(refusal)
            raise

    def _refusal_of_source(self, row: Any) -> str | None:
        """Why S3 no longer gives an object, as one that was moved to Glacier since; None if it does.

        A copy does not say which side was refused. The inbox's refusal ends the ingest; one object's must
        not, or it would end every later one, too.
        """
        if row["place"] != "s3":
            return None
        try:
            self.opener.begin("s3", row["path"], "", 1, etag=row["stamp"])
        except ClientError as error:
            return str(error.response["Error"].get("Code"))
        return None

    def _put(self, key: str, stream: BinaryIO, *, sha256: str) -> Fate:
        """S3 compares what arrives with the hash that was planned, and refuses anything else."""
        self.s3.put_object(
            Bucket=self.archive.inbox_bucket,
            Key=key,
            Body=stream,
            ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
        )
        return UPLOADED

    def _copy(self, row: Any, key: str) -> Fate:
        """Within S3, without the source's metadata and tags, which may name patients."""
        bucket, source = split_s3_uri(row["path"])
        self.s3.copy_object(
            Bucket=self.archive.inbox_bucket,
            Key=key,
            CopySource={"Bucket": bucket, "Key": source},
            CopySourceIfMatch=row["stamp"],
            MetadataDirective="REPLACE",
            TaggingDirective="REPLACE",
            ChecksumAlgorithm="SHA256",
        )
        return UPLOADED

    def _deidentified(
        self, key: str, stream: BinaryIO, row: Any, deidentifying: Deidentifying, records: ChunkRecords
    ) -> Fate:
        made = deidentifying.make(stream, planned=row["content"], records=records)
        if isinstance(made, Fate):
            return made
        body, sha256 = made
        return self._put(key, BytesIO(body), sha256=sha256)
