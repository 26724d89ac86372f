"""The errors of SageMaker, spelled as the service spells them."""

from __future__ import annotations

from local.service import ServiceError


def validation(message: str) -> ServiceError:
    """A request that cannot be."""
    return ServiceError("ValidationException", message, status=400)


def unsupported(what: str) -> ServiceError:
    """A feature of SageMaker that this machine cannot honour: refused, never ignored."""
    return validation(f"{what} is not supported by the local cloud.")


def not_found(kind: str, arn: str) -> ServiceError:
    """Models, endpoints and packages are missing by ValidationException, as SageMaker answers."""
    return validation(f'Could not find {kind} "{arn}".')


def job_not_found() -> ServiceError:
    """A training, processing or transform job that does not exist."""
    return validation("Requested resource not found.")


def in_use(message: str) -> ServiceError:
    """A name that is taken."""
    return ServiceError("ResourceInUse", message, status=400)
