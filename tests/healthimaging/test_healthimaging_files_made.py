"""Files that nobody ships through import and back: other transfer syntaxes, VRs, layouts and large values."""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import Any

import imagecodecs
import made_files
import numpy as np
import pydicom
import pytest
from cloud_archive import Archive
from dicom_equality import differences
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array

from healthimaging import HealthImagingError, ImageSet
from healthimaging.dicom.datasets import DatasetBuilder, build_dataset, refuse_bulk
from healthimaging.errors import DicomWebError, MetadataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

CHANGED_BY_DECODING = [tag_for_keyword("PhotometricInterpretation"), tag_for_keyword("PlanarConfiguration")]

WITH_PIXELS = {name: (dataset, pixels) for name, dataset, pixels in made_files.transcoded()} | {
    name: (dataset, pixels) for name, dataset, pixels in made_files.layouts()
}
UNDELIVERABLE = {name: (dataset, error) for name, dataset, error in made_files.undeliverable()}
HEADERS = dict(made_files.completed()) | {
    "every VR": made_files.every_vr(),
    "repeating groups": made_files.repeating_groups(),
    "an icon": made_files.icon(),
    **dict(made_files.lookup_tables(signed=True)),
    **dict(made_files.lookup_tables(signed=False)),
    **dict(made_files.real_numbers()),
}
LARGE, LARGE_VALUE = made_files.bulk()


@pytest.fixture(scope="module")
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


@pytest.fixture(scope="module")
def image_sets(archive: Archive) -> dict[str, ImageSet]:
    datasets = {name: dataset for name, (dataset, _) in (WITH_PIXELS | UNDELIVERABLE).items()}
    datasets |= HEADERS | {"large": LARGE}
    names = {f"{number:04}.dcm": name for number, name in enumerate(datasets)}
    # Twice over: some of the completed files are one instance.
    refs, refused = archive.import_report(
        {file: made_files.encoded(datasets[name]) for file, name in names.items()}
    )
    assert refused == {}
    return {names[file]: archive.open(ref.image_set_id, ref.version_id) for file, ref in refs.items()}


def through_a_file(dataset: Dataset) -> Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def as_imported(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(made_files.encoded(dataset)))


@pytest.mark.parametrize("name", list(WITH_PIXELS))
def test_pixels_come_back(image_sets: dict[str, ImageSet], name: str) -> None:
    source, pixels = WITH_PIXELS[name]
    (made,) = image_sets[name].datasets()
    found = through_a_file(made)
    assert differences(as_imported(source), found, besides=CHANGED_BY_DECODING) == []
    if pixels.ndim - (int(found.get("NumberOfFrames") or 1) > 1) > 2:
        assert (found.PhotometricInterpretation, found.PlanarConfiguration) == ("RGB", 0)
    array = pixel_array(found, raw=True)
    assert array.dtype == pixels.dtype
    np.testing.assert_array_equal(array, pixels)
    frames = [frame.pixels for frame in image_sets[name].frames()]
    np.testing.assert_array_equal(np.stack(frames), pixels.reshape(len(frames), *frames[0].shape))


@pytest.mark.parametrize("name", list(UNDELIVERABLE))
def test_what_cannot_be_decoded_is_told_and_its_header_comes_back(
    image_sets: dict[str, ImageSet], name: str
) -> None:
    source, error = UNDELIVERABLE[name]
    with pytest.raises(HealthImagingError) as caught:
        image_sets[name].datasets()
    assert type(caught.value).__name__ == error
    assert caught.value.sop_instance_uid == source.SOPInstanceUID
    (made,) = image_sets[name].datasets(pixels=False)
    assert differences(as_imported(source), through_a_file(made)) == []


@pytest.mark.parametrize("name", list(HEADERS))
def test_attributes_come_back(image_sets: dict[str, ImageSet], name: str) -> None:
    source = as_imported(HEADERS[name])
    found = through_a_file(
        next(d for d in image_sets[name].datasets() if d.SOPInstanceUID == source.SOPInstanceUID)
    )
    assert differences(source, found) == []
    if "PixelData" in source:
        np.testing.assert_array_equal(pixel_array(found), pixel_array(source))


@pytest.mark.parametrize("said", [None, "00", "01"])
def test_what_jpeg_has_lost_is_said(archive: Archive, said: str | None) -> None:
    stream = bytes(imagecodecs.jpeg8_encode(made_files.GREY, level=60))
    source = made_files.compressed(made_files.image(made_files.GREY), "1.2.840.10008.1.2.4.50", [stream])
    if said is not None:
        source.LossyImageCompression = said
    (made,) = archive.image_set([source]).datasets()
    assert made.LossyImageCompression == "01"
    # What the file says of it already is kept.
    assert ("LossyImageCompressionMethod" in made) == (said != "01")
    np.testing.assert_array_equal(made.pixel_array, as_imported(source).pixel_array)


def test_chroma_that_was_subsampled_is_that_of_every_pixel(archive: Archive) -> None:
    source = made_files.compressed(
        made_files.image(made_files.COLOUR),
        "1.2.840.10008.1.2.4.203",
        [bytes(imagecodecs.htj2k_encode(made_files.COLOUR))],
        PhotometricInterpretation="YBR_FULL_422",
    )
    (made,) = archive.image_set([source]).datasets()
    assert made.PhotometricInterpretation == "YBR_FULL"
    np.testing.assert_array_equal(pixel_array(made, raw=True), made_files.COLOUR)


def test_a_compressed_icon_is_refused_and_named(archive: Archive) -> None:
    stream = bytes(imagecodecs.jpegls_encode(made_files.GREY))
    source = made_files.compressed(made_files.image(made_files.GREY), "1.2.840.10008.1.2.4.80", [stream])
    icon = made_files.image(made_files.GREY)
    icon.add_new("PixelData", "OB", encapsulate([stream]))
    icon["PixelData"].is_undefined_length = True
    source.IconImageSequence = [icon]
    with pytest.raises(MetadataError, match="IconImageSequence holds compressed pixels"):
        archive.image_set([source]).datasets()


def test_large_values_are_read_where_a_reader_is_given(
    archive: Archive, image_sets: dict[str, ImageSet]
) -> None:
    metadata = image_sets["large"].metadata
    (instance,) = metadata.instances
    found = through_a_file(build_dataset(metadata, instance, bulk=archive.web.retrieve_bulk_data))
    assert differences(as_imported(LARGE), found) == []
    assert found[0x0099, 0x1001].value == LARGE_VALUE


def test_large_values_are_left_empty_or_refused_without_a_reader(image_sets: dict[str, ImageSet]) -> None:
    metadata = image_sets["large"].metadata
    (instance,) = metadata.instances
    header = through_a_file(build_dataset(metadata, instance))
    assert header[0x0099, 0x1001].value is None
    assert header[0x0099, 0x1002].value[0][0x0099, 0x1001].value is None
    with pytest.raises(MetadataError, match=r"00991001: .* bulk data") as caught:
        build_dataset(metadata, instance, bulk=refuse_bulk)
    assert caught.value.sop_instance_uid == LARGE.SOPInstanceUID


def test_a_large_value_that_cannot_be_read_names_its_attribute(image_sets: dict[str, ImageSet]) -> None:
    def fail(uri: str) -> bytes:
        msg = "The request failed"
        raise DicomWebError(msg, status=503)

    metadata = image_sets["large"].metadata
    with pytest.raises(DicomWebError, match="00991001") as caught:
        build_dataset(metadata, metadata.instances[0], bulk=fail)
    assert (caught.value.status, caught.value.sop_instance_uid) == (503, LARGE.SOPInstanceUID)


def test_datasets_of_one_image_set_share_nothing_that_can_be_changed(archive: Archive) -> None:
    series = [made_files.every_vr() for _ in range(3)]
    for number, dataset in enumerate(series):
        dataset.StudyInstanceUID = series[0].StudyInstanceUID
        dataset.SeriesInstanceUID = series[0].SeriesInstanceUID
        dataset.InstanceNumber = number
    metadata = archive.image_set(series).metadata
    builder = DatasetBuilder(metadata)
    datasets = [builder.build(instance) for instance in metadata.instances]
    for dataset, instance in zip(datasets, metadata.instances, strict=True):
        # What is remembered of the others changes nothing.
        assert differences(build_dataset(metadata, instance), dataset) == []
        assert dataset == build_dataset(metadata, instance)
    for one, other in itertools.combinations(datasets, 2):
        assert not mutable(one) & mutable(other)
    first = through_a_file(datasets[1])
    datasets[0].SelectorCSValue[0] = "CHANGED"
    datasets[0].SelectorDSValue.append("7")
    datasets[0].PatientID = "CHANGED"
    datasets[0].SelectorCodeSequenceValue[0].SelectorLOValue = "CHANGED"
    datasets[0].file_meta.TransferSyntaxUID = "1.2"
    assert differences(first, datasets[1]) == []
    assert datasets[1].file_meta.TransferSyntaxUID == first.file_meta.TransferSyntaxUID


def mutable(dataset: Dataset) -> set[int]:
    """Identities of everything in a dataset that can be changed."""
    found = {id(dataset), id(dataset.__dict__.get("_private_blocks")), id(dataset.__dict__.get("file_meta"))}
    found -= {id(None)}
    for element in dataset:
        found.add(id(element))
        if element.VM > 1 or element.VR == "SQ":
            found.add(id(element.value))
        if element.VR == "SQ":
            found.update(*(mutable(item) for item in element.value))
    return found
