"""S3 writes that must not replace anything: who comes second is told."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import pytest


def test_an_object_is_written_once(cloud: Any) -> None:
    s3 = cloud.client("s3")
    bucket = f"once-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="bundles/a.tar.gz", Body=b"first", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="bundles/a.tar.gz", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.get_object(Bucket=bucket, Key="bundles/a.tar.gz")["Body"].read() == b"first"

    def write(number: int) -> bool:
        try:
            s3.put_object(Bucket=bucket, Key="race", Body=str(number).encode(), IfNoneMatch="*")
        except botocore.exceptions.ClientError:
            return False
        return True

    with ThreadPoolExecutor(max_workers=8) as pool:
        won = [number for number, alone in enumerate(pool.map(write, range(8))) if alone]
    assert len(won) == 1
    assert s3.get_object(Bucket=bucket, Key="race")["Body"].read() == str(won[0]).encode()
