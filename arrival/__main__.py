"""The receiver's container: `python -m arrival receive`, and `python -m arrival echo`, which asks it whether
it is well.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time

import boto3
from botocore.config import Config
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from arrival.deidentification.key import key_of_secret
from arrival.errors import ArrivalError
from arrival.receiving.metrics import Metrics
from arrival.receiving.receiver import Receiver
from arrival.receiving.tls import Certificate
from arrival.settings import Settings
from healthimaging.client import connect

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 15.0
"""How often the receiver is asked whether it can import."""
_S3 = Config(retries={"mode": "standard", "total_max_attempts": 4}, max_pool_connections=64)
"""A device waits while an instance goes to S3: seconds, not minutes."""


class _Lines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                "level": record.levelname,
                "message": record.getMessage(),
            }
        )


def main(arguments: list[str]) -> int:
    """The exit code."""
    if arguments not in (["receive"], ["echo"]):
        print("usage: python -m arrival receive | echo", file=sys.stderr)
        return 2
    try:
        settings = Settings.from_variables(os.environ)
        return receive(settings) if arguments == ["receive"] else echo(settings)
    except ArrivalError as error:
        print(f"{error.message} {error.advice}", file=sys.stderr)
        return 1


def receive(settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # They say which keys and hosts; nobody needs that of every request.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    secret, tls = settings.deidentification_key_secret_arn, settings.tls_secret_arn
    secrets_manager = boto3.client("secretsmanager") if secret or tls else None
    receiver = Receiver(
        archive=settings.archive,
        access=settings.access,
        s3=boto3.client("s3", config=_S3),
        medical_imaging=connect(),
        quiet_seconds=settings.quiet_seconds,
        address=("0.0.0.0", settings.port),  # noqa: S104 - in a container, behind its security group
        key=key_of_secret(secrets_manager, secret) if secret else None,
        tls=Certificate.of_secret(secrets_manager, tls).context() if tls else None,
        metrics=Metrics(receiver=settings.access.ae_title),
    )
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    receiver.start()
    while receiver.healthy and not asked.wait(_LOOK_SECONDS):
        pass
    if not asked.is_set():
        logger.error("a thread that imports has ended; the receiver ends, to be started again")
    receiver.stop()
    return 0 if asked.is_set() else 1


def echo(settings: Settings) -> int:
    """Ask the receiver of this container by C-ECHO; with TLS, whether it takes connections.

    With TLS it may ask for a device's certificate, which this is none.
    """
    if settings.tls_secret_arn:
        with socket.create_connection(("127.0.0.1", settings.port), timeout=5):
            return 0
    entity = AE(ae_title=settings.access.ae_title)
    entity.add_requested_context(Verification)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    association = entity.associate("127.0.0.1", settings.port, ae_title=settings.access.ae_title)
    if not association.is_established:
        return 1
    answer = association.send_c_echo()
    association.release()
    return 0 if answer and answer.Status == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
