"""Turns what libraries raise into a failure that a person can act on, or says that it is a defect."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from arrival.errors import ArrivalError
from healthimaging.errors import HealthImagingError
from workbench.errors import WorkbenchError

ACCESS_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


def understood(error: BaseException) -> WorkbenchError | None:
    """The failure behind `error` with advice; None for an exception that nobody foresaw."""
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, ArrivalError):
        return WorkbenchError(error.message, advice=error.advice)
    if isinstance(error, EndpointConnectionError):
        return WorkbenchError(
            str(error), advice="Is the cloud up? For --env local: monai-aws cloud up. Else check the network."
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return WorkbenchError(
            "There are no AWS credentials for this environment.",
            advice="Sign in first: aws sso login, or set AWS_PROFILE.",
        )
    if isinstance(error, ClientError):
        return _service_error(error)
    if isinstance(error, BotoCoreError):
        return WorkbenchError(
            f"{type(error).__name__}: {error}", advice="Check the environment file and the network."
        )
    if isinstance(error, HealthImagingError):
        return WorkbenchError(
            f"{type(error).__name__}: {error}",
            advice="Look at the image set that it names: monai-aws show ID.",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return WorkbenchError(
            f"{error.filename}: {error.strerror}.",
            advice="Check the path, its permissions and the free space.",
        )
    return None


def _service_error(error: ClientError) -> WorkbenchError:
    code = str(error.response["Error"].get("Code", ""))
    advice = "The service's own message says what it did not accept."
    if code in ACCESS_DENIED:
        advice = "The caller or role that the message names lacks that permission: see the roles in infra/."
    elif "Throttl" in code or code == "TooManyRequestsException":
        advice = "The service is busy: run the same command again in a minute."
    return WorkbenchError(f"{error.operation_name}: {error}", advice=advice)
