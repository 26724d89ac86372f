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
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification

from arrival.deidentification.deidentifier import Deidentifier
from arrival.deidentification.key import KeyMaterial
from arrival.importing.import_job import BYTES_PER_FILE, Archive
from arrival.receiving.access import Access, Caller
from arrival.receiving.association import Server
from arrival.receiving.intake import Deidentifying, Intake
from arrival.receiving.metrics import Metrics
from arrival.receiving.objects import Objects
from arrival.receiving.receiver import Receiver
from arrival.receiving.studies import Studies
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
        return _client(self.cloud, "medical-imaging")

    @property
    def s3(self) -> Any:
        return _client(self.cloud, "s3")

    @property
    def imports(self) -> Objects:
        """Of the import bucket."""
        return Objects(s3=self.s3, bucket=self.archive.import_bucket)

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
        found = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.archive.inbox_bucket, Prefix=prefix
        )
        return [one["Key"] for page in found for one in page.get("Contents", ())]

    def body(self, key: str) -> bytes:
        """Of an object of the inbox."""
        return bytes(self.s3.get_object(Bucket=self.archive.inbox_bucket, Key=key)["Body"].read())

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
            "s3": self.s3,
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


@dataclass(frozen=True, kw_only=True)
class Front:
    """A receiver's DICOM side alone, with S3 in memory: what is imported later is no matter here."""

    server: Server
    stored: dict[str, bytes]
    """Objects by key, of all buckets."""
    emitted: list[str]
    """Metrics, as they are written."""

    @property
    def port(self) -> int:
        return self.server.port


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """S3 in memory, as far as an intake needs it."""

    stored: dict[str, bytes]

    def put_object(self, *, Key: str, Body: bytes, **_request: Any) -> None:
        self.stored[Key] = Body


def intake(stored: dict[str, bytes], *, key: KeyMaterial | None = None, **changes: Any) -> Intake:
    """One that stores in `stored`, and de-identifies with a key."""
    objects = Objects(s3=_Memory(stored=stored), bucket="bucket")
    return Intake(
        inbox=objects,
        imports=objects,
        studies=Studies(receiver="r", quiet_seconds=3600),
        deidentifying=Deidentifying(deidentifier=Deidentifier(key=key), key=key) if key else None,
        **changes,
    )


@contextmanager
def front(*, bytes_per_file: int = BYTES_PER_FILE, **changes: Any) -> Iterator[Front]:
    """One that listens."""
    stored: dict[str, bytes] = {}
    emitted: list[str] = []
    settings: dict[str, Any] = {
        "intake": intake(stored, bytes_per_file=bytes_per_file),
        "access": Access(ae_title=TITLE, callers=(Caller(ae_title=DEVICE, network=HERE),)),
        "metrics": Metrics(receiver=TITLE, write=emitted.append),
        "address": ("127.0.0.1", 0),
    }
    server = Server(**(settings | changes))
    server.start()
    try:
        yield Front(server=server, stored=stored, emitted=emitted)
    finally:
        server.stop(within_seconds=0)


@contextmanager
def associated(
    port: int, *contexts: tuple[str, list[str]], title: str = DEVICE, called: str = TITLE, tls: Any = None
) -> Iterator[Any]:
    """A device's association that proposes SOP classes, each with transfer syntaxes in the device's order.

    It may have been rejected.
    """
    entity = AE(ae_title=title)
    proposed = contexts or ((str(Verification), [str(ImplicitVRLittleEndian)]),)
    entity.requested_contexts = [build_context(*one) for one in proposed]
    tls_args = (tls, "localhost") if tls else None
    association = entity.associate("127.0.0.1", port, ae_title=called, tls_args=tls_args)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _unpacked(blob: bytes) -> bytes:
    return gzip.decompress(blob) if blob.startswith(b"\x1f\x8b") else blob


_CLIENTS: dict[tuple[str, str], Any] = {}


def _client(cloud: CloudUnderTest, service: str) -> Any:
    """Made once for a cloud: to make one takes longer than to import a study."""
    key = (cloud.endpoint_url, service)
    if key not in _CLIENTS and service == "medical-imaging":
        _CLIENTS[key] = connect(
            endpoint_url=cloud.endpoint_url,
            region_name=cloud.region,
            aws_access_key_id=cloud.access_key_id,
            aws_secret_access_key=cloud.secret_access_key,
        )
    elif key not in _CLIENTS:
        _CLIENTS[key] = cloud.client(service)
    return _CLIENTS[key]


def new_world(cloud: CloudUnderTest) -> World:
    """Empty, and nobody else's."""
    name = f"receive-{uuid.uuid4().hex[:12]}"
    s3, iam = _client(cloud, "s3"), _client(cloud, "iam")
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
    datastore = _client(cloud, "medical-imaging").create_datastore(datastoreName=name)["datastoreId"]
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
