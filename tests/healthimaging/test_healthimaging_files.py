"""Every real file through import, and back as datasets and frames: equal, or for a reason that is listed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from cloud_archive import Archive
from dicom_equality import differences
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.pixels.utils import pixel_array
from real_files import EXPECTED, FILES, NUMBER_OF_FILES, expected

from healthimaging import HealthImagingError, ImageSet, ImageSetRef

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
"""pydicom's remarks on its own test files."""


def test_the_tables_name_files_that_exist_and_every_file_is_counted() -> None:
    assert set(EXPECTED) <= set(FILES)
    assert len(FILES) == NUMBER_OF_FILES


@dataclass(kw_only=True)
class Imported:
    """What import made of the files, and what was read back of it so far."""

    client: Any
    refs: dict[str, ImageSetRef] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _read: dict[tuple[ImageSetRef, bool], dict[str, Dataset] | HealthImagingError] = field(
        default_factory=dict
    )

    def image_set(self, name: str) -> ImageSet:
        ref = self.refs[name]
        return ImageSet.open(self.client, ref.datastore_id, ref.image_set_id, ref.version_id)

    def dataset(self, name: str, sop_instance_uid: str, *, pixels: bool = True) -> Dataset:
        key = (self.refs[name], pixels)
        if key not in self._read:
            try:
                found = self.image_set(name).datasets(pixels=pixels)
                self._read[key] = {dataset.SOPInstanceUID: dataset for dataset in found}
            except HealthImagingError as error:
                self._read[key] = error
        read = self._read[key]
        if isinstance(read, HealthImagingError):
            raise read
        return read[sop_instance_uid]


def layers() -> Iterator[dict[str, bytes]]:
    """Files that can be imported together: the packages ship many instances in several encodings.

    What is expected to fail is alone in its image set, so that it fails alone.
    """
    waiting = dict(FILES)
    while waiting:
        layer: dict[str, bytes] = {}
        instances: set[str] = set()
        series: dict[str, bool] = {}
        for name, path in list(waiting.items()):
            fails = bool(expected(name).error or expected(name).header_error)
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
                instance, of = header.get("SOPInstanceUID", name), header.get("SeriesInstanceUID", name)
            except Exception:  # noqa: BLE001 - whatever it is, it is imported
                instance = of = name
            if instance in instances or series.get(of) or (fails and of in series):
                continue
            instances.add(instance)
            series[of] = fails
            layer[name] = path.read_bytes()
            del waiting[name]
        yield layer


@pytest.fixture(scope="module")
def imported(cloud: Any) -> Imported:
    first = Archive.create(cloud)
    everything = Imported(client=first.client)
    for layer in layers():
        archive = first.another()
        names = {f"{number:05}.dcm": name for number, name in enumerate(layer)}
        refs, refused = archive.import_report({file: layer[name] for file, name in names.items()})
        assert not set(refs) & set(refused)
        assert set(refs) | set(refused) == set(names), "a file was dropped in silence"
        everything.refs.update({names[file]: ref for file, ref in refs.items()})
        everything.refused.update({names[file]: reason for file, reason in refused.items()})
    return everything


def through_a_file(dataset: Dataset) -> Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


REFUSED = sorted(name for name in FILES if expected(name).refused)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_imported_is_refused_for_its_reason(imported: Imported, name: str) -> None:
    assert expected(name).refused in imported.refused.get(name, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FILES) - set(REFUSED)))
def test_a_file_comes_back(imported: Imported, name: str) -> None:
    assert name not in imported.refused
    source, wanted = pydicom.dcmread(FILES[name]), expected(name)
    if wanted.header_error:
        for pixels in (False, True):
            with pytest.raises(HealthImagingError) as caught:
                imported.dataset(name, source.SOPInstanceUID, pixels=pixels)
            assert type(caught.value).__name__ == wanted.header_error
        return
    header = imported.dataset(name, source.SOPInstanceUID, pixels=False)
    assert "PixelData" not in header
    stored = set() if "PixelData" not in source else {"PhotometricInterpretation", "PlanarConfiguration"}
    coerced = {tag_for_keyword(keyword) for keyword in stored & set(wanted.changed)}
    assert differences(source, through_a_file(header), besides=coerced) == []
    if wanted.error:
        with pytest.raises(HealthImagingError) as caught:
            imported.dataset(name, source.SOPInstanceUID)
        assert type(caught.value).__name__ == wanted.error
        return
    made = imported.dataset(name, source.SOPInstanceUID)
    found = through_a_file(made)
    assert differences(source, found, besides=[tag_for_keyword(keyword) for keyword in wanted.changed]) == []
    assert differences(found, made) == []
    assert {keyword: found[keyword].value for keyword in wanted.changed} == wanted.changed
    meta = found.file_meta
    assert meta.MediaStorageSOPClassUID == source.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == source.SOPInstanceUID
    assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert ("PixelData" in found) == ("PixelData" in source)
    if "PixelData" in source:
        pixels = pixel_array(found)
        if wanted.crc is not None:
            assert zlib.crc32(pixels.tobytes()) == wanted.crc
        else:
            original = pixel_array(source)
            assert pixels.dtype == original.dtype.newbyteorder("=")
            np.testing.assert_array_equal(pixels, original)


SMALL = 1_000_000


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in sorted(set(FILES) - set(REFUSED))
        if FILES[name].stat().st_size < SMALL and not (expected(name).error or expected(name).header_error)
    ],
)
def test_its_frames_are_its_pixels(imported: Imported, name: str) -> None:
    image_set = imported.image_set(name)
    frames: dict[str, list[Any]] = {
        instance.sop_instance_uid: [] for instance in image_set.metadata.instances
    }
    for frame in image_set.frames():
        assert frame.number == len(frames[frame.instance_uid]) + 1
        frames[frame.instance_uid].append(frame.pixels)
    for uid, pixels in frames.items():
        made = imported.dataset(name, uid)
        if "PixelData" in made:
            array = pixel_array(made, raw=True)
            expected_frames = array if len(pixels) > 1 else array[None]
            np.testing.assert_array_equal(np.stack(pixels), expected_frames)
        else:
            assert not pixels
