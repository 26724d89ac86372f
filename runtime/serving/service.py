"""Puts the warm model together: bundle, clients, application."""

from __future__ import annotations

import logging
import time

import boto3

from runtime.errors import BundleError
from runtime.metrics import Metrics
from runtime.operators.series_rules import SeriesRule
from runtime.serving.worker import Segment
from runtime.settings import Settings

_LOG = logging.getLogger(__name__)


def load_service(settings: Settings, metrics: Metrics) -> Segment:
    """Load the bundle, warm it, and return the function that segments one image set.

    torch, MONAI and holoscan are imported here and not with the module: the server answers health checks
    from its first moment, and these imports are most of a cold start.

    Raises
    ------
    BundleError
        When the model directory cannot be served, and why.
    """
    start = time.perf_counter()
    from healthimaging import connect
    from runtime.application import SegmentationApplication
    from runtime.bundles.bundle import load_bundle, warm_up
    from runtime.results.archive import SegmentationArchive
    from runtime.results.results import Results
    from runtime.results.segmentation_copy import SegmentationCopy

    imported = time.perf_counter()
    bundle = load_bundle(settings.model_directory)
    loaded = time.perf_counter()
    warm_up(bundle)
    warm = time.perf_counter()
    client = connect()
    copy = None
    if settings.segmentation_copy is not None:
        copy = SegmentationCopy(boto3.client("s3"), prefix=settings.segmentation_copy)
    application = SegmentationApplication(
        client=client,
        bundle=bundle,
        rules=settings.series_rules or (_default_rule(bundle.files.modality),),
        results=Results(
            archive=SegmentationArchive(client, wait_seconds=settings.archive_wait_seconds),
            model=bundle.identity,
            copy=copy,
        ),
        metrics=metrics,
    )
    _LOG.info(
        "model is warm",
        extra={
            "fields": {
                "model": bundle.files.name,
                "version": bundle.files.version,
                "sha256": bundle.files.sha256,
                "device": str(bundle.device),
                "secondsImport": round(imported - start, 3),
                "secondsLoad": round(loaded - imported, 3),
                "secondsWarmUp": round(warm - loaded, 3),
            }
        },
    )
    return lambda request, waited: application.segment(request, waited=waited)


def _default_rule(modality: str | None) -> SeriesRule:
    if modality is None:
        msg = (
            "configs/metadata.json names no modality (network_data_format.inputs.image.modality), so nothing "
            "says which series the model may be given: add it, or set RUNTIME_SERIES_RULES"
        )
        raise BundleError(msg)
    return SeriesRule(modality=modality)
