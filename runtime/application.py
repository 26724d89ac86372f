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
from monai.deploy.core import Application

from runtime.bundles.bundle import Bundle
from runtime.metrics import Metrics
from runtime.operators.archive_writer import ArchiveWriter
from runtime.operators.bundle_inference import BundleInference
from runtime.operators.exchange import Exchange
from runtime.operators.image_set_loader import ImageSetLoader
from runtime.operators.segmentation_writer import SegmentationWriter
from runtime.operators.series_rules import SeriesRule
from runtime.operators.series_selection import SeriesSelection
from runtime.operators.stored_result import StoredResult
from runtime.operators.volume_loader import VolumeLoader
from runtime.results.answer import Result
from runtime.results.results import Results
from runtime.serving.request import ImageSetInput


class SegmentationApplication(Application):
    """Image set in, stored DICOM SEG out. Not for concurrent use: one thread owns it."""

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

    def segment(self, request: ImageSetInput, *, waited: float = 0.0) -> Result:
        """Segment one image set and return the result as it is stored in the archive.

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
        if exchange.result is None:
            msg = "the graph ended without a result"
            raise RuntimeError(msg)
        result = replace(exchange.result, seconds=exchange.timings())
        self._metrics.segmented(result, exchange.volume)
        return result

    def compose(self) -> None:
        """Chain the operators for the exchange at hand; holoscan calls this at every run."""
        if self._exchange is None:
            msg = "the application is run through segment()"
            raise RuntimeError(msg)
        exchange = self._exchange
        loader = ImageSetLoader(
            self,
            CountCondition(self, 1),
            exchange=exchange,
            client=self._client,
            model_fingerprint=self._bundle.files.fingerprint,
            name="image_set_loader",
        )
        stored = StoredResult(self, exchange=exchange, results=self._results, name="stored_result")
        selection = SeriesSelection(self, exchange=exchange, rules=self._rules, name="series_selection")
        volume = VolumeLoader(self, exchange=exchange, name="volume_loader")
        inference = BundleInference(self, exchange=exchange, bundle=self._bundle, name="bundle_inference")
        writer = SegmentationWriter(self, exchange=exchange, bundle=self._bundle, name="segmentation_writer")
        archive = ArchiveWriter(self, exchange=exchange, results=self._results, name="archive_writer")
        self.add_flow(loader, stored, {("opened", "opened")})
        self.add_flow(stored, selection, {("missing", "opened")})
        self.add_flow(selection, volume, {("selected", "selected")})
        self.add_flow(volume, inference, {("source", "source")})
        self.add_flow(inference, writer, {("masks", "masks")})
        self.add_flow(writer, archive, {("segmentation", "segmentation")})
