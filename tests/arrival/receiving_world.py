"""An archive of the local cloud for receivers, and devices that send to them."""

from __future__ import annotations

import gzip
import ipaddress
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from cloud_under_test import CloudUnderTest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from made_files import encoded, header
from pynetdicom import AE

from arrival.deidentification.key import KeyMaterial
from arrival.importing.import_job import Archive
from arrival.receiving.access import Access, Caller
from arrival.receiving.metrics import Metrics
from arrival.receiving.receiver import Receiver
from healthimaging.client import connect

TITLE = "MONAI"
DEVICE = "STORESCU"
HERE = ipaddress.ip_network("127.0.0.0/8")


@dataclass(frozen=True, kw_only=True)
class World:
    """A datastore, its two buckets, and the role that imports."""

    cloud: CloudUnderTest
    archive: Archive

    @property
    def medical_imaging(self) -> Any:
        return connect(
            endpoint_url=self.cloud.endpoint_url,
            region_name=self.cloud.region,
            aws_access_key_id=self.cloud.access_key_id,
            aws_secret_access_key=self.cloud.secret_access_key,
        )

    @property
    def variables(self) -> dict[str, str]:
        """Of the receiver's container."""
        return {
            **self.cloud.environment,
            "ARRIVAL_AE_TITLE": TITLE,
            "ARRIVAL_ALLOWED": json.dumps([{"ae_title": DEVICE, "cidr": str(HERE)}]),
            "ARRIVAL_DATASTORE_ID": self.archive.datastore_id,
            "ARRIVAL_INBOX_BUCKET": self.archive.inbox_bucket,
            "ARRIVAL_IMPORT_BUCKET": self.archive.import_bucket,
            "ARRIVAL_IMPORT_ROLE_ARN": self.archive.import_role_arn,
            "ARRIVAL_DEIDENTIFY": "false",
        }

    def keys(self, prefix: str) -> list[str]:
        """Of the inbox."""
        pages = self.cloud.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.archive.inbox_bucket, Prefix=prefix)
        return [one["Key"] for page in found for one in page.get("Contents", ())]

    def body(self, key: str) -> bytes:
        """Of an object of the inbox."""
        s3 = self.cloud.client("s3")
        return bytes(s3.get_object(Bucket=self.archive.inbox_bucket, Key=key)["Body"].read())

    def instances(self) -> set[str]:
        """SOP Instance UIDs of the whole datastore, those of every page."""
        client, found = self.medical_imaging, set()
        pages = client.get_paginator("search_image_sets").paginate(datastoreId=self.archive.datastore_id)
        for page in pages:
            for one in page["imageSetsMetadataSummaries"]:
                blob = client.get_image_set_metadata(
                    datastoreId=self.archive.datastore_id, imageSetId=one["imageSetId"]
                )["imageSetMetadataBlob"].read()
                study = json.loads(_unpacked(blob))["Study"]
                found |= {uid for series in study["Series"].values() for uid in series["Instances"]}
        return found

    @contextmanager
    def receiver(self, **changes: Any) -> Iterator[Receiver]:
        """A receiver of this process, which listens."""
        settings: dict[str, Any] = {
            "archive": self.archive,
            "access": Access(ae_title=TITLE, callers=(Caller(ae_title=DEVICE, network=HERE),)),
            "s3": self.cloud.client("s3"),
            "medical_imaging": self.medical_imaging,
            "quiet_seconds": 0.2,
            "look_seconds": 0.05,
            "address": ("127.0.0.1", 0),
            "metrics": Metrics(receiver=TITLE, write=lambda _line: None),
            "every_seconds": 0.05,
        }
        receiver = Receiver(**(settings | changes))
        receiver.start()
        try:
            yield receiver
        finally:
            receiver.stop(within_seconds=1.0)


def _unpacked(blob: bytes) -> bytes:
    return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob


def new_world(cloud: CloudUnderTest) -> World:
    name = f"receive-{uuid.uuid4().hex[:12]}"
    s3, iam = cloud.client("s3"), cloud.client("iam")
    for bucket in (f"{name}-inbox", f"{name}-imports"):
        s3.create_bucket(Bucket=bucket)
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "medical-imaging.amazonaws.com"},
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]
    allowed = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{name}-*"],
    }
    iam.put_role_policy(
        RoleName=name, PolicyName="import", PolicyDocument=json.dumps({"Statement": [allowed]})
    )
    datastore = cloud.client("medical-imaging").create_datastore(datastoreName=name)["datastoreId"]
    return World(
        cloud=cloud,
        archive=Archive(
            datastore_id=datastore,
            import_role_arn=role["Arn"],
            inbox_bucket=f"{name}-inbox",
            import_bucket=f"{name}-imports",
        ),
    )


def until(holds: Any, *, seconds: float = 40.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)


def storescu() -> list[str]:
    """dcmtk's, which hospitals know, or pynetdicom's where it is not installed."""
    program = shutil.which("storescu")
    return [program] if program else [sys.executable, "-m", "pynetdicom", "storescu"]


def send(files: list[Path], *, port: int, title: str = DEVICE, called: str = TITLE) -> int:
    """The exit code of storescu over files."""
    done = subprocess.run(
        [*storescu(), "-aet", title, "-aec", called, "127.0.0.1", str(port), *map(str, files)],
        check=False,
        capture_output=True,
        timeout=60,
    )
    return done.returncode


def statuses(files: list[Path], *, port: int, tls: Any = None) -> dict[str, int]:
    """What the receiver answers to each instance (pynetdicom's client): status by SOP Instance UID."""
    datasets = [pydicom.dcmread(file) for file in files]
    entity = AE(ae_title=DEVICE)
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate(
        "127.0.0.1", port, ae_title=TITLE, tls_args=(tls, "localhost") if tls else None
    )
    assert association.is_established
    answered = {}
    for dataset in datasets:
        answer = association.send_c_store(dataset)
        answered[str(dataset.SOPInstanceUID)] = int(answer.Status)
    association.release()
    return answered


def write_study(folder: Path, *, study: str, count: int, patient: str = "P") -> list[Path]:
    """Small CT instances of one study with one series."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        dataset = header(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            Modality="CT",
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            BurnedInAnnotation="NO",
            PatientName="Synthetic^Person",
            StudyDate="20240102",
        )
        dataset.PatientID = patient
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"{study}.1.{number}", number + 1
        path = folder / f"{study}-{number}.dcm"
        path.write_bytes(encoded(dataset))
        paths.append(path)
    return paths


def data_set_bytes(part10: bytes) -> bytes:
    """A file without preamble and file meta information: what crosses the wire (PS3.10 section 7.1)."""
    length = int.from_bytes(part10[140:144], "little")
    return part10[144 + length :]


def key_material() -> KeyMaterial:
    return KeyMaterial.from_secret(uuid.uuid4().hex)


def new_authority() -> tuple[str, str]:
    """Certificate and key, in PEM, of an authority that is its own server and device, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
