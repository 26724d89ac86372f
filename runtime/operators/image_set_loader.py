"""Opens the requested image set and pins its version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from monai.deploy.core import Operator, OperatorSpec

from healthimaging import ImageSet
from runtime.errors import SourceNotPrimaryError
from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import OpenedImageSet
from runtime.operators.series_rules import SeriesRule
from runtime.operators.series_selection import select
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
        rules: Sequence[SeriesRule],
        **kwargs: Any,
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._model_fingerprint = model_fingerprint
        self._rules = tuple(rules)
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
            opened = identified(image_set, model_fingerprint=self._model_fingerprint, rules=self._rules)
        op_output.emit(opened, "opened")


def identified(image_set: ImageSet, *, model_fingerprint: str, rules: Sequence[SeriesRule]) -> OpenedImageSet:
    """Give an image set the identity of its result: that of the chosen series, if there are several.

    Raises
    ------
    NoMatchingSeriesError, SeveralMatchingSeriesError
        When there are several, as `runtime.operators.series_rules.select_series`.
    """
    identity = ResultIdentity(
        image_set_id=image_set.ref.image_set_id,
        version_id=image_set.ref.version_id,
        model_fingerprint=model_fingerprint,
    )
    opened = OpenedImageSet(image_set=image_set, identity=identity)
    if len(image_set.metadata.series) == 1:
        return opened
    chosen = select(opened, rules).series_instance_uid
    return replace(opened, identity=replace(identity, source_series=chosen))
