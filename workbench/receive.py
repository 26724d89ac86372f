"""`monai-aws receive`: the DICOM receiver on this machine, for the archive of an environment."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from arrival.deidentification.key import key_of_secret
from arrival.receiving.access import Access, Caller, is_ae_title
from arrival.receiving.metrics import Metrics
from arrival.receiving.receiver import Receiver, Totals
from arrival.receiving.settling import Settled
from arrival.receiving.tls import Certificate
from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.ingest import archive_of
from workbench.output import Output
from workbench.progress import Progress

LOOK_SECONDS = 0.2
STOP_SECONDS = 5.0
"""For open associations when a person ends the receiver."""


def receiver_of(
    deployment: Deployment,
    *,
    access: Access,
    address: tuple[str, int],
    quiet_seconds: float,
    deidentify: bool,
    certificate: Certificate | None,
    progress: Progress,
) -> Receiver:
    """A receiver for the environment's archive; not started yet.

    Raises:
        KeyMaterialError: The key of de-identification cannot be read.
        TlsError: The certificate cannot be used.
    """
    session = deployment.session

    def tell(done: Settled) -> None:
        counts = f"{done.imported} imported, {done.failed} failed, {done.quarantined} in quarantine"
        progress(f"study {done.batch.study[:8]}: {counts}")

    secret = deployment.stack("data")["DeidentificationKeySecretArn"] if deidentify else None
    return Receiver(
        archive=archive_of(deployment),
        access=access,
        s3=session.client("s3"),
        medical_imaging=session.client("medical-imaging"),
        quiet_seconds=quiet_seconds,
        address=address,
        key=key_of_secret(session.client("secretsmanager"), secret) if secret else None,
        tls=certificate.context() if certificate else None,
        # Metrics are for a container's log; a person sees the totals.
        metrics=Metrics(receiver=access.ae_title, write=lambda _line: None),
        settled=tell,
    )


def receive_command(
    env: Env = "local",
    as_json: Json = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 for any free port.")
    ] = 11112,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every network.")] = "127.0.0.1",
    aet: Annotated[str, typer.Option("--aet", help="What devices call this receiver.")] = "MONAI",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="AET[@NETWORK]",
            help="A device that may send, and from where, such as PACS1@10.20.0.0/16; may be repeated. "
            "Without a network: from this machine.",
        ),
    ] = None,
    quiet_seconds: Annotated[
        float, typer.Option(min=0, help="A study that is quiet for so long is imported.")
    ] = 60.0,
    deidentify: Annotated[
        bool | None,
        typer.Option(
            "--deidentify/--no-deidentify",
            help="Before anything is stored; the environment file says so where nothing is given.",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM; with it the receiver speaks TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, of the certificate.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM; devices must then show a certificate that it signed.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End after the first study is imported, or in quarantine.")
    ] = False,
) -> None:
    """Receive studies from devices by DICOM (C-STORE, C-ECHO) and import them; Ctrl-C ends it.

    An instance is acknowledged when it is durable in S3. What a receiver did not import before it ended is
    imported by the next one.
    """
    output = Output(as_json)
    with reporting(output):
        access = Access(ae_title=_title(aet), callers=tuple(_caller(one) for one in allow or ()))
        if not access.callers:
            raise WorkbenchError(
                "Nobody may send.", advice="Name the devices, for example: --allow STORESCU."
            )
        deployment = deployment_of(env)
        wanted = deployment.session.environment.arrival.deidentify if deidentify is None else deidentify
        ended = threading.Event()
        receiver = receiver_of(
            deployment,
            access=access,
            address=(host, port),
            quiet_seconds=quiet_seconds,
            deidentify=wanted,
            certificate=_certificate(tls_certificate, tls_key, tls_ca),
            progress=output.progress,
        )
        if once:
            tell = receiver.settled

            def last(done: Settled) -> None:
                tell(done)
                if done.left is None:
                    ended.set()

            receiver.settled = last
        try:
            receiver.start()
        except OSError as error:
            raise WorkbenchError(
                f"Port {port} of {host} cannot be listened at: {error.strerror}.",
                advice="Choose another one: --port 0 takes any that is free.",
            ) from error
        how = ", de-identified" if wanted else ""
        output.progress(f"{aet} listens at {host}:{receiver.port}{how}; Ctrl-C ends it")
        try:
            while receiver.healthy and not ended.wait(LOOK_SECONDS):
                pass
        except KeyboardInterrupt:
            output.progress("ending")
        well = receiver.healthy
        receiver.stop(within_seconds=STOP_SECONDS)
        totals = receiver.totals
        output.result(_document(totals, port=receiver.port), _lines(totals))
    if not well:
        output.errors.print("A thread that imports has ended. Start the receiver again: it goes on.")
        raise typer.Exit(1)
    if totals.failed or totals.quarantined or totals.waiting or totals.missing or totals.pending:
        raise typer.Exit(1)


def _document(totals: Totals, *, port: int) -> dict[str, object]:
    return {
        "port": port,
        "received": totals.received,
        "repeated": totals.repeated,
        "takenOver": totals.taken_over,
        "imported": totals.imported,
        "failed": totals.failed,
        "quarantined": totals.quarantined,
        "missing": totals.missing,
        "pending": totals.pending,
        "waitingStudies": totals.waiting,
    }


def _lines(totals: Totals) -> Sequence[str]:
    whole = f"{totals.received} instances received, {totals.imported} imported"
    lines = [f"{whole}, {totals.failed} failed, {totals.quarantined} in quarantine"]
    if totals.repeated:
        lines.append(f"{totals.repeated} of them came twice, and are counted once")
    if totals.taken_over:
        lines.append(f"{totals.taken_over} more had been received before, by a receiver that ended")
    if totals.missing:
        lines.append(f"{totals.missing} were deleted from S3 before they were imported")
    if totals.waiting:
        lines.append(f"{totals.waiting} studies are in S3 and not imported yet: the next receiver does it")
    return lines


def _title(text: str) -> str:
    if not is_ae_title(text):
        raise WorkbenchError(
            f"{text!r} is no AE title.", advice="1 to 16 ASCII characters, without a backslash."
        )
    return text


def _caller(text: str) -> Caller:
    title, _, network = text.partition("@")
    try:
        return Caller(ae_title=_title(title), network=ipaddress.ip_network(network or "127.0.0.0/8"))
    except ValueError as error:
        raise WorkbenchError(
            f"{network!r} is no network.", advice="For example --allow PACS1@10.20.0.0/16."
        ) from error


def _certificate(certificate: Path | None, key: Path | None, ca: Path | None) -> Certificate | None:
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None:
        raise WorkbenchError(
            "TLS needs a certificate and its key.", advice="Give --tls-certificate and --tls-key."
        )
    return Certificate(
        certificate=certificate.read_text(encoding="ascii"),
        key=key.read_text(encoding="ascii"),
        ca=ca.read_text(encoding="ascii") if ca else None,
    )
