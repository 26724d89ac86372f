"""What can go wrong with a request or a model, each with the HTTP status that the endpoint answers.

Messages name UIDs and settings, never attributes that describe a patient: they end in logs and in answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from botocore.exceptions import BotoCoreError, ClientError

from healthimaging.errors import (
    DicomWebError,
    FrameError,
    FrameUnavailableError,
    GeometryError,
    HealthImagingError,
    ImageSetNotFoundError,
    MetadataError,
    SegmentationError,
    ServiceError,
    VolumeError,
)


class InferenceError(Exception):
    """Base of everything that the runtime reports by its own name.

    The class name is the ``type`` of the error document, ``status`` its HTTP status.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after: int | None = None
    """Seconds after which the same request may succeed; answered as the ``Retry-After`` header."""


class InvalidRequestError(InferenceError):
    """The body is not a request of the promised form."""

    status = HTTPStatus.BAD_REQUEST


class UnsupportedMediaTypeError(InferenceError):
    """The body is not declared as JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class RequestTooLargeError(InferenceError):
    """The body is longer than any request of the promised form."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class NotAcceptableError(InferenceError):
    """The caller wants an answer that is not JSON."""

    status = HTTPStatus.NOT_ACCEPTABLE


class BodyTimeoutError(InferenceError):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class RequestAbandonedError(InferenceError):
    """The caller has closed the connection; only the log gets to see this."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class RequestExpiredError(InferenceError):
    """The request waited in the queue until its caller gave it up."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class ModelLoadingError(InferenceError):
    """The model is not warm yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class QueueFullError(InferenceError):
    """As many requests wait as the queue holds."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class StoppingError(InferenceError):
    """The container was told to stop and takes nothing more."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 5


class WorkerStoppedError(InferenceError):
    """The thread that owns the models has ended: the container answers no more and is to be replaced."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 60


class ModelInterruptedError(InferenceError):
    """The model's code tried to end the program, so what it left behind cannot be trusted."""


class DeviceFailedError(InferenceError):
    """The GPU reported an error that every later call of the process would meet again."""


class MemoryExhaustedError(InferenceError):
    """The request needs more memory than there is; smaller ones can be answered."""


class ModelNotLoadedError(InferenceError):
    """No model of that name is loaded (multi-model endpoints)."""

    status = HTTPStatus.NOT_FOUND


class ModelAlreadyLoadedError(InferenceError):
    """A model of that name is loaded already (multi-model endpoints)."""

    status = HTTPStatus.CONFLICT


class ModelMemoryError(InferenceError):
    """The model does not fit beside those that are loaded; SageMaker unloads one and tries again."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class SourceNotPrimaryError(InferenceError):
    """The requested image set is not primary: a result in its study could not be primary either."""

    status = HTTPStatus.CONFLICT


class NoMatchingSeriesError(InferenceError):
    """No series (or volume) of the image set fulfils the model's selection rules."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class SeveralMatchingSeriesError(InferenceError):
    """More than one series (or volume) fulfils a selection rule, and guessing is not acceptable."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UnsuitablePredictionError(InferenceError):
    """The network gave no numbers, or the bundle's postprocessing something that is no mask on the source's
    grid."""


class ReportError(InferenceError):
    """The result exists, but a report about it cannot be written for this source."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class StoreRefusedError(InferenceError):
    """The datastore did not store a result."""

    status = HTTPStatus.BAD_GATEWAY


class StoredResultMissingError(InferenceError):
    """The datastore accepted a result, but no image set of its series can be found."""

    status = HTTPStatus.BAD_GATEWAY


class ResultNotPrimaryError(InferenceError):
    """A result is stored in a non-primary image set: viewers and QIDO-RS do not show it."""

    status = HTTPStatus.CONFLICT


class SettingsError(InferenceError):
    """The environment of the container holds values that cannot be used."""


class BundleError(InferenceError):
    """The model directory is not a bundle that this runtime can serve, and why."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


@dataclass(frozen=True, kw_only=True)
class ErrorReport:
    """An exception as it is answered and logged."""

    status: int
    type: str
    message: str
    retry_after: int | None
    expected: bool
    """False when the runtime has no name for this failure: the log then carries the place in the code."""


_SERVICE_STATUS = {
    "AccessDeniedException": HTTPStatus.FORBIDDEN,
    "ResourceNotFoundException": HTTPStatus.NOT_FOUND,
    "ValidationException": HTTPStatus.BAD_REQUEST,
    "ConflictException": HTTPStatus.CONFLICT,
    "ThrottlingException": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""AWS error codes (AWS HealthImaging API reference, common errors) -> what the endpoint answers."""


def report(error: BaseException) -> ErrorReport:
    """Describe any exception without repeating text that might hold patient data.

    Errors of this package and of ``healthimaging`` are written to be shown. An error of AWS is shown by its
    code, operation and message, which names what was asked for: identifiers. The text of anything else may
    quote attribute values: it is withheld.
    """
    if isinstance(error, InferenceError):
        return ErrorReport(
            status=int(error.status),
            type=type(error).__name__,
            message=str(error),
            retry_after=error.retry_after,
            expected=True,
        )
    if isinstance(error, ClientError):
        return _report_service_error(error)
    library_error = _report_library_error(error)
    if library_error is not None:
        return library_error
    if isinstance(error, BotoCoreError):
        return ErrorReport(
            status=int(HTTPStatus.BAD_GATEWAY),
            type=type(error).__name__,
            message="an AWS service could not be called: check the endpoint, the network and the credentials",
            retry_after=None,
            expected=False,
        )
    return ErrorReport(
        status=int(HTTPStatus.INTERNAL_SERVER_ERROR),
        type="InternalError",
        message=f"unexpected {type(error).__name__}; the log names the place",
        retry_after=None,
        expected=False,
    )


def _report_service_error(error: ClientError) -> ErrorReport:
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    status = _SERVICE_STATUS.get(code, HTTPStatus.BAD_GATEWAY)
    reason = str(error.response.get("Error", {}).get("Message", ""))
    return ErrorReport(
        status=int(status),
        type=code,
        message=f"{error.operation_name}: {code}: {reason}",
        retry_after=10 if code == "ThrottlingException" else None,
        expected=True,
    )


_LIBRARY_STATUS: tuple[tuple[type[HealthImagingError], HTTPStatus], ...] = (
    (ImageSetNotFoundError, HTTPStatus.NOT_FOUND),
    (MetadataError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (FrameUnavailableError, HTTPStatus.BAD_GATEWAY),
    (FrameError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (GeometryError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (VolumeError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (SegmentationError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (DicomWebError, HTTPStatus.BAD_GATEWAY),
)
"""What the source cannot give is 422, what the service did not do is 502; the first match counts."""


def _report_library_error(error: BaseException) -> ErrorReport | None:
    if not isinstance(error, HealthImagingError):
        return None
    kind = type(error).__name__
    status = next((s for k, s in _LIBRARY_STATUS if isinstance(error, k)), HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, ServiceError):
        status = _SERVICE_STATUS.get(error.code, HTTPStatus.BAD_GATEWAY)
        kind = error.code
    return ErrorReport(
        status=int(status),
        type=kind,
        message=str(error),
        retry_after=10 if status == HTTPStatus.SERVICE_UNAVAILABLE else None,
        expected=True,
    )
