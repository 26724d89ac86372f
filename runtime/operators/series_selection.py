"""Chooses the series that the model can be given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from monai.deploy.core import Operator, OperatorSpec
from pydicom import Dataset

from runtime.operators.exchange import Exchange
from runtime.operators.faults import reported
from runtime.operators.messages import OpenedImageSet, SelectedSeries
from runtime.operators.series_rules import SeriesRule, select_series


def select(opened: OpenedImageSet, rules: Sequence[SeriesRule]) -> SelectedSeries:
    """The one series of an image set that the rules choose, by its headers.

    Raises
    ------
    NoMatchingSeriesError, SeveralMatchingSeriesError
        As `runtime.operators.series_rules.select_series`.
    """
    candidates: dict[str, list[Dataset]] = defaultdict(list)
    for header in opened.image_set.datasets(pixels=False):
        candidates[str(header.SeriesInstanceUID)].append(header)
    uid = select_series(candidates, rules, image_set_id=opened.identity.image_set_id)
    return SelectedSeries(opened=opened, series_instance_uid=uid, headers=tuple(candidates[uid]))


class SeriesSelection(Operator):
    """Applies the rules to the headers of the image set, before any pixel is fetched."""

    def __init__(
        self, fragment: Any, *args: Any, exchange: Exchange, rules: Sequence[SeriesRule], **kwargs: Any
    ) -> None:
        self._exchange = exchange
        self._rules = tuple(rules)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("opened")
        spec.output("selected")

    @reported
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        opened: OpenedImageSet = op_input.receive("opened")
        with self._exchange.phase("select"):
            selected = select(opened, self._rules)
        op_output.emit(selected, "selected")
