"""What the DICOM receiver does with AWS, in the role of its task. ECS is recorded only in the local cloud."""

from __future__ import annotations

import uuid

from role_persons import INTEGRATOR
from role_training import StepFailed
from role_world import RoleWorld

from arrival.importing.import_job import Archive, outcome, start_import

RECEIVER = "arrival/Receiver"


def see_to_what_was_refused(world: RoleWorld) -> None:
    """What waits in the inbox is found, read and taken away by the clinical integrator."""
    s3, bucket = world.client("s3"), world.deployment.stack("data")["InboxBucketName"]
    key = f"failed/{uuid.uuid4().hex}.dcm"
    s3.put_object(Bucket=bucket, Key=key, Body=b"refused")
    person = world.as_persona(INTEGRATOR).session.client("s3")
    if not person.list_objects_v2(Bucket=bucket, Prefix="failed/").get("Contents"):
        raise StepFailed("nothing is there")
    person.get_object(Bucket=bucket, Key=key)["Body"].read()
    person.delete_object(Bucket=bucket, Key=key)


def receive_a_study(world: RoleWorld) -> None:
    """Keep what arrives, find it again, have it imported, read what came of it, and clear it away."""
    receiver, data = world.as_persona(RECEIVER), world.deployment.stack("data")
    s3, medical_imaging = (receiver.session.client(name) for name in ("s3", "medical-imaging"))
    archive = Archive(
        datastore_id=data["DatastoreId"],
        import_role_arn=data["ImportRoleArn"],
        inbox_bucket=data["InboxBucketName"],
        import_bucket=data["ImportBucketName"],
    )
    batch = f"received/{uuid.uuid4().hex}/"
    key = f"{batch}000000.dcm"
    s3.put_object(Bucket=archive.inbox_bucket, Key=key, Body=world.study.images[0].read_bytes())
    found = s3.list_objects_v2(Bucket=archive.inbox_bucket, Prefix=batch)["Contents"]
    job = start_import(
        medical_imaging, archive, prefix=batch, client_token=uuid.uuid4().hex, name="role-of-the-receiver"
    )
    said = outcome(medical_imaging, s3, archive, job, every_seconds=0.1)
    if len(found) != 1 or len(said.imported) != 1 or said.failed:
        raise StepFailed(str(said))
    s3.delete_object(Bucket=archive.inbox_bucket, Key=key)
    for place in ("quarantine", "failed"):
        s3.put_object(Bucket=archive.inbox_bucket, Key=f"{place}/{uuid.uuid4().hex}.json", Body=b"{}")
