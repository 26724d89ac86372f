"""Puts the warm model together: bundle, clients, application."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import time
from pathlib import Path

import boto3

from runtime.errors import BundleError
from runtime.metrics import Metrics
from runtime.operators.series_rules import SeriesRule
from runtime.serving.served_model import Service
from runtime.settings import Settings

_LOG = logging.getLogger(__name__)


@functools.cache
def import_frameworks() -> None:
    """Import what every model needs, once, so that it is not counted as part of the first one.

    The hundred thousands of objects that come with torch and MONAI stay until the end: the garbage collector,
    which would look at them all again and again (half a second each time), is told so. Models come later:
    they are collected when they are unloaded.
    """
    importlib.import_module("runtime.application")
    gc.collect()
    gc.freeze()


def load_service(settings: Settings, metrics: Metrics, model_directory: Path) -> Service:
    """Load the bundle in ``model_directory``, warm it, and put it together with clients of its own.

    torch, MONAI and holoscan are imported here and not with the module: the server answers health checks
    from its first moment, and these imports are most of a cold start.

    Raises
    ------
    BundleError
        When the model directory cannot be served, and why.
    """
    start = time.perf_counter()
    import_frameworks()
    from healthimaging import connect
    from runtime.application import InferenceApplication
    from runtime.bundles.bundle import load_bundle, warm_up
    from runtime.results.archive import ResultArchive
    from runtime.results.result_files import ResultFiles
    from runtime.results.results import Results

    imported = time.perf_counter()
    bundle = load_bundle(model_directory)
    loaded = time.perf_counter()
    warm_up(bundle)
    warm = time.perf_counter()
    client = connect()
    files = None
    if settings.segmentation_copy is not None:
        files = ResultFiles(boto3.client("s3"), prefix=settings.segmentation_copy)
    application = InferenceApplication(
        client=client,
        bundle=bundle,
        rules=settings.series_rules or (_default_rule(bundle.files.modality),),
        results=Results(
            archive=ResultArchive(client, wait_seconds=settings.archive_wait_seconds),
            model=bundle.identity,
            task=bundle.task,
            outputs=settings.outputs,
            files=files,
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
    return Service(
        model=bundle.identity,
        segment=lambda request, waited: application.infer(request, waited=waited),
    )


def _default_rule(modality: str | None) -> SeriesRule:
    if modality is None:
        msg = (
            "configs/metadata.json names no modality (network_data_format.inputs.image.modality), so nothing "
            "says which series the model may be given: add it, or set RUNTIME_SERIES_RULES"
        )
        raise BundleError(msg)
    return SeriesRule(modality=modality)
