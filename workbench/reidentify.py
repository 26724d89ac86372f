"""`monai-aws reidentify`: who is behind a pseudonym, for those who may read the records and the key.

It prints originals to the person who asks, and nowhere else. CloudTrail has the reading of the secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from arrival.deidentification.key import key_of_secret
from arrival.deidentification.outcome import Identity
from arrival.deidentification.reidentification import PREFIX, unseal
from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.output import Output

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class NothingRecorded(WorkbenchError):
    """No sealed record names this study or patient."""


def reidentify(deployment: Deployment, wanted: str) -> tuple[Identity, ...]:
    """Every recorded identity of a study or patient, each once.

    Args:
        deployment: With the stack `data`; the caller may read its import bucket below `reidentification/`,
            and the secret of the key.
        wanted: A NEW Study Instance UID, or a NEW patient ID. For a patient ID every record is opened.

    Raises:
        NothingRecorded: No record names it.
        KeyMaterialError, SealedRecordError: The key cannot be read, or does not open the record.
    """
    data = deployment.stack("data")
    bucket = data["ImportBucketName"]
    key = key_of_secret(deployment.session.client("secretsmanager"), data["DeidentificationKeySecretArn"])
    is_study = _UID.fullmatch(wanted) is not None
    s3 = deployment.session.client("s3")
    found: dict[Identity, None] = {}
    for name in _records(s3, bucket, f"{PREFIX}{wanted}/" if is_study else PREFIX):
        identities = unseal(s3.get_object(Bucket=bucket, Key=name)["Body"].read(), key=key)
        found.update(dict.fromkeys(one for one in identities if is_study or one.patient_id == wanted))
    if not found:
        raise NothingRecorded(
            f"No re-identification record names the {'study' if is_study else 'patient'} {wanted}.",
            advice="Give the Study Instance UID or the patient ID that `query` shows.",
        )
    return tuple(found)


def _records(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", ()):
            if entry["Key"].endswith(".sealed"):
                yield entry["Key"]


def reidentify_command(
    wanted: Annotated[str, typer.Argument(metavar="STUDY_UID|PATIENT_ID", help="Of a de-identified study.")],
    env: Env = "local",
    as_json: Json = False,
) -> None:
    """Print who is behind a de-identified study or patient. Needs the records and the key."""
    output = Output(as_json)
    with reporting(output):
        identities = reidentify(deployment_of(env), wanted)
        output.result({"identities": [asdict(one) for one in identities]}, _lines(identities))


def _lines(identities: Sequence[Identity]) -> Iterator[str]:
    studies = dict.fromkeys(
        (
            one.patient_id,
            one.original_patient_id,
            one.study_instance_uid,
            one.original_study_instance_uid,
            one.days_of_shift,
        )
        for one in identities
    )
    for patient, original_patient, study, original_study, days in studies:
        yield f"patient {patient} is {original_patient or '(no patient ID)'}"
        yield f"  study {study} is {original_study}; dates were moved by {days} days"
        for one in identities:
            if one.study_instance_uid == study:
                yield f"    instance {one.sop_instance_uid} is {one.original_sop_instance_uid}"
