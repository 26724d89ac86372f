"""Reads the picture for readers that the endpoint stored: a secondary capture in the study."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

import healthimaging
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.predicting.answer import Prediction

KIND = "snapshot"
"""Of a report in an answer."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The picture as it is in the archive."""

    image_set_id: str
    png: str
    """Base64."""
    width: int
    height: int


def read_snapshot(deployment: Deployment, prediction: Prediction) -> Snapshot | None:
    """The stored snapshot of a prediction; None where its endpoint makes none."""
    stored = [one.image_set_id for one in prediction.reports if one.kind == KIND and one.image_set_id]
    if not stored:
        return None
    datastore = deployment.stack("data")["DatastoreId"]
    client = deployment.session.client("medical-imaging")
    [dataset] = healthimaging.ImageSet.open(client, datastore, stored[0]).datasets()
    pixels = np.asarray(dataset.pixel_array)
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise WorkbenchError(
            f"Image set {stored[0]} is no colour picture: {pixels.dtype}, shape {pixels.shape}.",
            advice="Look at it: monai-aws show " + stored[0],
        )
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG", optimize=True)
    return Snapshot(
        image_set_id=stored[0],
        png=base64.b64encode(data.getvalue()).decode("ascii"),
        width=pixels.shape[1],
        height=pixels.shape[0],
    )
