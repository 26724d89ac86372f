"""Everything that is made of a SEG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import Dataset

from healthimaging import Geometry, Volume
from runtime.reports.label_map import LabelMapFile, write_label_maps
from runtime.reports.measurement_report import write_measurement_report
from runtime.reports.snapshot import write_snapshot
from runtime.results.answer import ModelIdentity
from runtime.results.identity import ResultIdentity
from runtime.results.outputs import Output

__all__ = ["Derived", "LabelMapFile", "derive"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Derived:
    """DICOM objects to be stored, by what they are, and files."""

    reports: Mapping[Output, Dataset] = field(default_factory=dict)
    label_maps: tuple[LabelMapFile, ...] = ()


def derive(
    outputs: Collection[Output],
    *,
    segmentation: Dataset,
    source: Sequence[Dataset],
    grid: Geometry,
    volume: Volume | None,
    model: ModelIdentity,
    result: ResultIdentity,
) -> Derived:
    """Make what is asked for of a SEG.

    Parameters
    ----------
    outputs
        What to make.
    segmentation
        The SEG as it is stored, with its pixels.
    source
        Headers of the instances that were segmented.
    grid
        That of the volume that was segmented.
    volume
        The volume itself; only `Output.SNAPSHOT` needs it.
    model, result
        What segmented it, and the identity of the result.

    Raises
    ------
    ReportError
        When a report cannot be written about this source.
    """
    reports = {}
    if Output.MEASUREMENT_REPORT in outputs:
        reports[Output.MEASUREMENT_REPORT] = write_measurement_report(
            segmentation=segmentation, source=source, model=model, result=result
        )
    if Output.SNAPSHOT in outputs:
        if volume is None:
            msg = "a snapshot shows the volume, which was not given"
            raise ValueError(msg)
        reports[Output.SNAPSHOT] = write_snapshot(
            segmentation=segmentation, source=source, volume=volume, model=model, result=result
        )
    label_maps: tuple[LabelMapFile, ...] = ()
    if Output.NIFTI in outputs:
        label_maps = write_label_maps(
            segmentation=segmentation,
            grid=grid,
            description=f"{model.name} {model.version}",
        )
    return Derived(reports=reports, label_maps=label_maps)
