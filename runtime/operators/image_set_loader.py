"""Opens the requested image set and pins its version."""

from __future__ import annotations

from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from healthimaging import ImageSet
from runtime.errors import SourceNotPrimaryError
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import OpenedImageSet
from runtime.results.identity import ResultIdentity


class ImageSetLoader(Operator):
    """Reads the metadata of the image set that the exchange asks for; pixels are read later."""

    def __init__(
        self,
        fragment: Any,
        *args: Any,
        exchange: Exchange,
        client: Any,
        model_fingerprint: str,
        **kwargs: Any,
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._model_fingerprint = model_fingerprint
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("opened")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        request = self._exchange.request
        with self._exchange.phase("open"):
            image_set = ImageSet.open(
                self._client, request.datastore_id, request.image_set_id, version=request.version_id
            )
            if not image_set.is_primary:
                msg = (
                    f"image set {request.image_set_id} is not primary: its patient or study attributes "
                    "conflict with those of its study, so a segmentation could not be shown beside it"
                )
                raise SourceNotPrimaryError(msg)
        identity = ResultIdentity(
            image_set_id=image_set.ref.image_set_id,
            version_id=image_set.ref.version_id,
            model_fingerprint=self._model_fingerprint,
        )
        op_output.emit(OpenedImageSet(image_set=image_set, identity=identity), "opened")
