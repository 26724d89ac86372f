"""A study that a device sends, as a PACS or a scanner would: by C-STORE to the DICOM receiver."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from arrival.receiving.access import Access, Caller
from arrival.waiting import poll
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.nrrd_volume import CtVolume
from workbench.demo.patients import Patient
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.receive import receiver_of

SLICES = 12
"""Too few for the rule that asks the endpoint about chest CTs."""
QUIET_SECONDS = 1.0
WITHIN_SECONDS = 120.0
DEVICE = "STORESCU"
"""What dcmtk's storescu calls itself."""

PATIENT = Patient(
    name="pacs",
    patient_name="Synthetic^Demo Sent",
    patient_id="DEMO-SENT",
    study_id="DEMO5",
    accession_number="DEMO-ACC-5",
    study_date="20000105",
)


@dataclass(frozen=True, kw_only=True)
class SentStudy:
    """A study that a device has sent."""

    client: str
    """The program that sent it."""
    received: int
    imported: int
    seconds: float
    """From the first instance to the end of the import, the quiet period among them."""

    def to_json(self) -> dict[str, object]:
        return {
            "client": self.client,
            "received": self.received,
            "imported": self.imported,
            "seconds": self.seconds,
        }


def write_sent_study(volume: CtVolume, folder: Path) -> list[Path]:
    """Some slices of the volume, as a study of `PATIENT`."""
    thinned = replace(volume, array=volume.array[:SLICES].copy())
    return write_series(ct_datasets(thinned, PATIENT), folder)


def send_to_receiver(deployment: Deployment, files: list[Path], progress: Progress) -> SentStudy:
    """Start a receiver on this machine, send files to it, and wait until they are imported.

    Raises:
        WorkbenchError: An instance was not acknowledged or not imported.
    """
    here = ipaddress.ip_network("127.0.0.0/8")
    receiver = receiver_of(
        deployment,
        access=Access(ae_title="MONAI", callers=(Caller(ae_title=DEVICE, network=here),)),
        address=("127.0.0.1", 0),
        quiet_seconds=QUIET_SECONDS,
        deidentify=False,
        certificate=None,
        progress=progress,
    )
    receiver.start()
    try:
        begin = time.monotonic()
        client = _send(files, port=receiver.port)
        progress(f"{client} sent {receiver.totals.received} instances, each acknowledged")
        poll(
            lambda: True if receiver.totals.imported >= len(files) else None,
            every_seconds=0.2,
            timeout_seconds=WITHIN_SECONDS,
            on_timeout=lambda: WorkbenchError(
                f"Of {len(files)} instances {receiver.totals.imported} were imported within "
                f"{WITHIN_SECONDS:.0f} s, {receiver.totals.failed} failed.",
                advice="What failed is below failed/ of the inbox bucket, each with its reason.",
            ),
        )
        seconds = round(time.monotonic() - begin, 2)
    finally:
        receiver.stop()
    totals = receiver.totals
    return SentStudy(client=client, received=totals.received, imported=totals.imported, seconds=seconds)


def _send(files: list[Path], *, port: int) -> str:
    """Send with dcmtk's storescu, which hospitals know, or with pynetdicom's where that is not installed."""
    program = shutil.which("storescu")
    client = [program] if program else [sys.executable, "-m", "pynetdicom", "storescu"]
    done = subprocess.run(
        [*client, "-aet", DEVICE, "-aec", "MONAI", "127.0.0.1", str(port), *map(str, files)],
        check=False,
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
    )
    name = "storescu (dcmtk)" if program else "storescu (pynetdicom)"
    if done.returncode != 0:
        raise WorkbenchError(
            f"{name} ended with {done.returncode}: the receiver did not acknowledge every instance.",
            advice="Its last lines say what was refused.",
            details=(done.stdout + done.stderr).splitlines()[-5:],
        )
    return name
