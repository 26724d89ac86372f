"""Asks an endpoint for a result, in the way that its mode wants, and waits for the answer."""

from __future__ import annotations

from healthimaging.reference import ImageSetRef
from workbench.deployment import Deployment
from workbench.predicting.answer import Prediction
from workbench.predicting.asynchronous import PREDICTION_TIMEOUT_SECONDS, ask_and_wait
from workbench.predicting.real_time import REAL_TIME_TIMEOUT_SECONDS, ask_now
from workbench.progress import Progress, silent
from workbench.served import Mode

PREDICTING = (
    Mode.ASYNCHRONOUS,
    Mode.REAL_TIME,
    Mode.SERVERLESS,
    Mode.INFERENCE_COMPONENTS,
    Mode.MULTI_MODEL,
)
"""The modes that answer a single request; where nobody names an endpoint, the first of these counts."""


def predict(
    deployment: Deployment,
    image: ImageSetRef,
    *,
    endpoint: str | None = None,
    model: str | None = None,
    progress: Progress = silent,
    every_seconds: float = 1.0,
    timeout_seconds: float | None = None,
) -> Prediction:
    """Send `image` to an endpoint, and wait for its answer.

    Args:
        deployment: The environment's stacks.
        image: The image set, at a version.
        endpoint: As the environment file names it; None takes its first asynchronous endpoint, or else the
            first that answers at once.
        model: Which model, for endpoints that have several: the task, or for mode multi-model the name of
            the archive without `.tar.gz`.
        progress: Gets what happens.
        every_seconds: Time between two looks for an asynchronous answer.
        timeout_seconds: How long to wait in all; None takes what is usual for the mode.

    Raises:
        PredictionFailed: The endpoint could not do it, or not in time.
        WorkbenchError: There is no such endpoint.
    """
    served = deployment.served(endpoint, *PREDICTING)
    if served.mode.answers_at_once:
        return ask_now(
            deployment,
            served,
            image,
            model=model,
            progress=progress,
            timeout_seconds=REAL_TIME_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
        )
    return ask_and_wait(
        deployment,
        served,
        image,
        progress=progress,
        every_seconds=every_seconds,
        timeout_seconds=PREDICTION_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
    )
