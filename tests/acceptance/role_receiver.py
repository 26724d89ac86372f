"""What the DICOM receiver does with AWS, in the role of its task. ECS is recorded only in the local cloud."""

from __future__ import annotations

import uuid

import pydicom
from role_persons import INTEGRATOR
from role_training import StepFailed
from role_world import RoleWorld

from arrival.importing.import_job import BYTES_PER_JOB, FILES_PER_JOB, Archive
from arrival.importing.pacing import StartPace
from arrival.receiving.batch_job import BatchJobs
from arrival.receiving.intake import Intake
from arrival.receiving.lives import Lives
from arrival.receiving.objects import Objects
from arrival.receiving.settling import Settling
from arrival.receiving.studies import Studies

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
    """The receiver's own work, but for its sockets: keep what arrives, have it imported, report, clear away.
    One instance is whole, the other was cut off, so that it waits in the inbox for a person.
    """
    receiver, data = world.as_persona(RECEIVER), world.deployment.stack("data")
    s3, medical_imaging = (receiver.session.client(name) for name in ("s3", "medical-imaging"))
    archive = Archive(
        datastore_id=data["DatastoreId"],
        import_role_arn=data["ImportRoleArn"],
        inbox_bucket=data["InboxBucketName"],
        import_bucket=data["ImportBucketName"],
    )
    name = f"20000101T000000-{uuid.uuid4().hex[:8]}"
    inbox, imports = (Objects(s3=s3, bucket=one) for one in (archive.inbox_bucket, archive.import_bucket))
    lives = Lives(imports=imports, receiver=name, silent_seconds=60)
    lives.beat()
    if name not in lives.alive():
        raise StepFailed("it does not find itself")
    studies = Studies(
        receiver=name, quiet_seconds=0, files_per_batch=FILES_PER_JOB, bytes_per_batch=BYTES_PER_JOB
    )
    intake = Intake(inbox=inbox, imports=imports, studies=studies, deidentifying=None)
    for file, length in zip(world.study.images, (None, -100), strict=False):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        intake.take(
            file.read_bytes()[:length],
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
        )
    [batch] = studies.closed()
    jobs = BatchJobs(
        medical_imaging=medical_imaging,
        s3=s3,
        archive=archive,
        imports=imports,
        pace=StartPace(),
        every_seconds=0.1,
    )
    settling = Settling(jobs=jobs, inbox=inbox, imports=imports)
    settled = settling.settle(batch)
    if (settled.imported, settled.failed, settled.missing) != (1, 1, 0):
        raise StepFailed(str(settled))
    lives.beat(ended=True)
