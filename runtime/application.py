"""The inference as a MONAI Deploy application: one object, run anew for every image set.

``Application.run`` composes the graph from fresh operators each time and takes some milliseconds (the
models, transforms and clients that the operators share are made once and handed to them), so nothing is kept
between two runs but what is listed in ``__init__``. The SDK's AppContext is not used: it knows single model
files, not bundles, and reads them again for its own cache; its ``init_app_context`` parses the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from holoscan.conditions import CountCondition
from monai.deploy.core import Application, Operator

from runtime.bundles.bundle import Bundle
from runtime.bundles.task import Task
from runtime.metrics import Metrics
from runtime.operators.archive_writer import ArchiveWriter
from runtime.operators.bundle_classification import BundleClassification
from runtime.operators.bundle_inference import BundleInference
from runtime.operators.classification_writer import ClassificationWriter
from runtime.operators.exchange import Exchange
from runtime.operators.found_source import FoundSource
from runtime.operators.image_set_loader import ImageSetLoader
from runtime.operators.report_writer import ReportWriter
from runtime.operators.segmentation_writer import SegmentationWriter
from runtime.operators.series_rules import SeriesRule
from runtime.operators.series_selection import SeriesSelection
from runtime.operators.stored_result import StoredResult
from runtime.operators.volume_loader import VolumeLoader
from runtime.results.answer import Result
from runtime.results.results import Results
from runtime.serving.request import ImageSetInput


class InferenceApplication(Application):
    """Image set in, stored SEG or classification report out. Not for concurrent use: one thread owns it."""

    def __init__(
        self,
        *,
        client: Any,
        bundle: Bundle,
        rules: Sequence[SeriesRule],
        results: Results,
        metrics: Metrics,
    ) -> None:
        """``client`` is boto3's ``medical-imaging`` client."""
        self._client = client
        self._bundle = bundle
        self._rules = tuple(rules)
        self._results = results
        self._metrics = metrics
        self._exchange: Exchange | None = None
        super().__init__()

    def infer(self, request: ImageSetInput, *, waited: float = 0.0) -> Result:
        """Run the bundle on one image set and return the result as it is stored in the archive.

        Parameters
        ----------
        request
            Which image set.
        waited
            Seconds that the request has waited for its turn; reported as the phase ``queue``.

        Raises
        ------
        InferenceError, HealthImagingError, botocore.exceptions.ClientError
            As the operators raise them; the application can be used again afterwards.
        """
        exchange = Exchange(request=request, seconds={"queue": waited})
        self._exchange = exchange
        try:
            self.run()
        finally:
            self._exchange = None
        # Taken out, so that the exception does not keep the exchange alive, nor the exchange its frames.
        failure, exchange.failure = exchange.failure, None
        if failure is not None:
            raise failure
        if exchange.result is None:
            msg = "the graph ended without a result"
            raise RuntimeError(msg)
        result = replace(exchange.result, seconds=exchange.timings())
        self._metrics.segmented(result, exchange.volume)
        return result

    def compose(self) -> None:
        """Chain the operators for the exchange at hand; holoscan calls this at every run."""
        if self._exchange is None:
            msg = "the application is run through infer()"
            raise RuntimeError(msg)
        exchange = self._exchange
        loader = ImageSetLoader(
            self,
            CountCondition(self, 1),
            exchange=exchange,
            client=self._client,
            model_fingerprint=self._bundle.files.fingerprint,
            rules=self._rules,
            name="image_set_loader",
        )
        stored = StoredResult(self, exchange=exchange, results=self._results, name="stored_result")
        selection = SeriesSelection(self, exchange=exchange, rules=self._rules, name="series_selection")
        volume = VolumeLoader(self, exchange=exchange, name="volume_loader")
        inference, writer, port = self._model_operators(exchange)
        archive = ArchiveWriter(self, exchange=exchange, results=self._results, name="archive_writer")
        found = FoundSource(self, exchange=exchange, rules=self._rules, name="found_source")
        reports = ReportWriter(
            self, exchange=exchange, bundle=self._bundle, results=self._results, name="report_writer"
        )
        self.add_flow(loader, stored, {("opened", "opened")})
        self.add_flow(stored, selection, {("missing", "opened")})
        self.add_flow(selection, volume, {("selected", "selected")})
        self.add_flow(volume, inference, {("source", "source")})
        self.add_flow(inference, writer, {(port, port)})
        self.add_flow(writer, archive, {("result", "result")})
        self.add_flow(archive, reports, {("stored", "stored")})
        # One of the two ways is taken: the second where the archive has the result and lacks a report.
        self.add_flow(stored, found, {("incomplete", "incomplete")})
        self.add_flow(found, reports, {("stored", "stored")})

    def _model_operators(self, exchange: Exchange) -> tuple[Operator, Operator, str]:
        """What runs the bundle, what makes a DICOM object of its output, and the port between them."""
        if self._bundle.task is Task.CLASSIFICATION:
            return (
                BundleClassification(
                    self, exchange=exchange, bundle=self._bundle, name="bundle_classification"
                ),
                ClassificationWriter(
                    self, exchange=exchange, bundle=self._bundle, name="classification_writer"
                ),
                "scores",
            )
        return (
            BundleInference(self, exchange=exchange, bundle=self._bundle, name="bundle_inference"),
            SegmentationWriter(self, exchange=exchange, bundle=self._bundle, name="segmentation_writer"),
            "masks",
        )
