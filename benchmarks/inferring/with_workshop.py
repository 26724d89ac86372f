"""Answers requests in the workshop's way, each with a graph and a model of its own.

`python -m benchmarks.inferring.with_workshop PACKAGE MODEL BUCKET` runs in the models' environment, with
AHItoDICOMInterface from the folder PACKAGE. As in the workshop's inference script a request ends when the SEG
is uploaded to BUCKET; it is not stored in the archive. Imports, the AHItoDICOMInterface object and the S3
client are made once; the graph, the parsed bundle and the model are made anew for every request.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3

from benchmarks.inferring.workshop_application import WorkshopApplication
from benchmarks.reading.program import serve


def main() -> None:
    """Serve until standard input ends."""
    package, model, bucket = sys.argv[1:]
    sys.path.append(package)
    client: Any = import_module("AHItoDICOMInterface.AHItoDICOM").AHItoDICOM()
    s3 = boto3.client("s3")

    def segment(datastore_id: str, image_set_id: str) -> tuple[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            application = WorkshopApplication(
                client=client,
                datastore_id=datastore_id,
                image_set_id=image_set_id,
                model=Path(model),
                output=Path(folder),
            )
            application.run()
            (file,) = Path(folder).iterdir()
            s3.upload_file(str(file), bucket, file.name)
            return file.name, file.read_bytes()

    def objects(answer: tuple[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield answer

    serve({"segmentation": (segment, objects)})


if __name__ == "__main__":
    main()
