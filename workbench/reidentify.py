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
from arrival.errors import SealedRecordError
from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.output import Output
from workbench.progress import Progress, silent

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


_OTHER_VERSION = (
    "Use the version of the secret that was current when the study arrived: --version-stage AWSPREVIOUS for "
    "the one before, --version-id for any (who may list them: `aws secretsmanager list-secret-version-ids "
    "--include-deprecated`)."
)


class NothingRecorded(WorkbenchError):
    """No sealed record names this study or patient."""


def reidentify(
    deployment: Deployment,
    wanted: str,
    *,
    version_id: str | None = None,
    version_stage: str | None = None,
    progress: Progress = silent,
) -> tuple[Identity, ...]:
    """Every recorded identity of a study or patient, each once.

    Args:
        deployment: With the stack `data`; the caller may read its import bucket below `reidentification/`,
            and the secret of the key.
        wanted: A NEW Study Instance UID, or a NEW patient ID. For a patient ID every record is opened.
        version_id, version_stage: Version of the secret, as GetSecretValue takes them; None for the current
            one.
        progress: Is told of records that did not open while others named the patient. A new patient ID comes
            of the key, so records that another version sealed cannot name it; damaged ones could.

    Raises:
        NothingRecorded: No record names it.
        KeyMaterialError: The key cannot be read.
        SealedRecordError: It does not open a record of the study, or opens none that names the patient.
    """
    data = deployment.stack("data")
    bucket = data["ImportBucketName"]
    key = key_of_secret(
        deployment.session.client("secretsmanager"),
        data["DeidentificationKeySecretArn"],
        version_id=version_id,
        version_stage=version_stage,
    )
    is_study = _UID.fullmatch(wanted) is not None
    s3 = deployment.session.client("s3")
    found: dict[Identity, None] = {}
    closed = 0
    for name in _records(s3, bucket, f"{PREFIX}{wanted}/" if is_study else PREFIX):
        try:
            identities = unseal(s3.get_object(Bucket=bucket, Key=name)["Body"].read(), key=key)
        except SealedRecordError as error:
            if is_study:
                raise SealedRecordError(error.message, advice=_OTHER_VERSION) from error
            closed += 1
            continue
        found.update(dict.fromkeys(one for one in identities if is_study or one.patient_id == wanted))
    if not found and closed:
        raise SealedRecordError(
            f"{closed} re-identification records do not open, and no other names the patient {wanted}: they"
            " were sealed under another version of the key, or are damaged.",
            advice=_OTHER_VERSION,
        )
    if not found:
        raise NothingRecorded(
            f"No re-identification record names the {'study' if is_study else 'patient'} {wanted}.",
            advice="Give the Study Instance UID or the patient ID that `query` shows.",
        )
    if closed:
        progress(
            f"{closed} records did not open: another version of the key sealed them, or they are damaged"
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
    version_id: Annotated[
        str | None, typer.Option(help="Version of the key's secret; the current one where none is given.")
    ] = None,
    version_stage: Annotated[
        str | None, typer.Option(help="The same by its stage: AWSPREVIOUS is the version before.")
    ] = None,
) -> None:
    """Print who is behind a de-identified study or patient. Needs the records and the key."""
    output = Output(as_json)
    with reporting(output):
        identities = reidentify(
            deployment_of(env),
            wanted,
            version_id=version_id,
            version_stage=version_stage,
            progress=output.progress,
        )
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
