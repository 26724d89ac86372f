"""The errors of HealthImaging's service model, ready to raise."""

from __future__ import annotations

import traceback

from local.service import ServiceError


def not_found(what: str) -> ServiceError:
    """404: the resource does not exist, or is deleted."""
    return ServiceError("ResourceNotFoundException", f"{what} was not found.")


def invalid(message: str) -> ServiceError:
    """400: the request's values do not make sense."""
    return ServiceError("ValidationException", message)


def conflict(message: str) -> ServiceError:
    """409: the resource is not in the state that the request expects."""
    return ServiceError("ConflictException", message)


def not_acceptable(message: str) -> ServiceError:
    """406: the stored bytes cannot be given in the form that was asked for."""
    return ServiceError("NotAcceptableException", message)


def quota_exceeded(message: str) -> ServiceError:
    """402: an account or job limit is reached."""
    return ServiceError("ServiceQuotaExceededException", message)


def failure_place(error: BaseException) -> str:
    """For the log: what was raised and where, without its message, which may quote values of a file."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
