"""The workshop's application: operators of the MONAI Deploy App SDK, with AHItoDICOMInterface as the source.

The operators, their connections and their settings are those of the SDK's spleen example, which the workshop
took over; only the first one is its own and asks AHItoDICOMInterface for data sets instead of reading a
folder. `segment` does with it what the workshop's inference script does for every request: it composes the
graph, loads the model, and leaves a SEG in a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Operator, OperatorSpec
from monai.deploy.core.domain import Image
from monai.deploy.core.domain.dicom_series import DICOMSeries
from monai.deploy.core.domain.dicom_study import DICOMStudy
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import (
    DICOMSegmentationWriterOperator,
    SegmentDescription,
)
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

RULES = """
{"selections": [{"name": "CT Series", "conditions": {"StudyDescription": "(.*?)", "Modality": "(?i)CT"}}]}
"""


class ImageSetLoader(Operator):
    """Emits the one study of an image set, as the SDK's loader does for a folder."""

    def __init__(
        self, fragment: Any, *args: Any, client: Any, datastore_id: str, image_set_id: str, **kwargs: Any
    ) -> None:
        self._client = client
        self._datastore_id = datastore_id
        self._image_set_id = image_set_id
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("dicom_study_list")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        datasets: list[Dataset] = self._client.DICOMizeImageSet(self._datastore_id, self._image_set_id)
        first = datasets[0]
        study = DICOMStudy(first.StudyInstanceUID)
        series = DICOMSeries(first.SeriesInstanceUID)
        # The attributes that rules and the conversion to a volume read, as the SDK fills them.
        attributes = DICOMDataLoaderOperator(self.fragment)
        attributes.populate_study_attributes(study, first)
        attributes.populate_series_attributes(series, first)
        study.add_series(series)
        for dataset in datasets:
            series.add_sop_instance(dataset)
        op_output.emit([study], "dicom_study_list")


class WorkshopApplication(Application):
    """Image set in, file of a SEG out."""

    def __init__(
        self, *, client: Any, datastore_id: str, image_set_id: str, model: Path, output: Path
    ) -> None:
        self._client = client
        self._datastore_id = datastore_id
        self._image_set_id = image_set_id
        self._model = model
        self._output = output
        super().__init__()

    def compose(self) -> None:
        """Chain the operators."""
        context = AppContext({"model": str(self._model), "output_path": str(self._output)})
        loader = ImageSetLoader(
            self,
            CountCondition(self, 1),
            client=self._client,
            datastore_id=self._datastore_id,
            image_set_id=self._image_set_id,
            name="study_loader",
        )
        selector = DICOMSeriesSelectorOperator(self, rules=RULES, name="series_selector")
        volume = DICOMSeriesToVolumeOperator(self, name="series_to_volume")
        inference = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_config_names=BundleConfigNames(config_names=["inference"]),
            bundle_path=self._model,
            name="bundle_inference",
        )
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=[
                SegmentDescription(
                    segment_label="lung",
                    segmented_property_category=codes.SCT.Organ,
                    segmented_property_type=codes.SCT.Lung,
                    algorithm_name="ct_segmentation",
                    algorithm_family=codes.DCM.ArtificialIntelligence,
                    algorithm_version="0.1.0",
                )
            ],
            output_folder=self._output,
            name="segmentation_writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        selected = {("study_selected_series_list", "study_selected_series_list")}
        self.add_flow(selector, volume, selected)
        self.add_flow(volume, inference, {("image", "image")})
        self.add_flow(selector, writer, selected)
        self.add_flow(inference, writer, {("pred", "seg_image")})
