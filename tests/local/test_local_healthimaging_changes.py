"""Image sets that change: updates, reverts, copies, deletion, tags."""

from __future__ import annotations

import json
from typing import Any

import imagecodecs
import numpy as np
import pytest
from botocore.exceptions import ClientError
from healthimaging_archive import Archive, as_files, ct_series, instances


@pytest.fixture
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


def change(value: dict[str, Any]) -> bytes:
    return json.dumps({"SchemaVersion": "1.1", **value}).encode()


def update(
    archive: Archive, image_set_id: str, latest: str, updates: dict[str, Any], **options: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = archive.client.update_image_set_metadata(
        datastoreId=archive.datastore_id,
        imageSetId=image_set_id,
        latestVersionId=latest,
        updateImageSetMetadataUpdates=updates,
        **options,
    )
    return answer


# Updates


def test_an_update_makes_a_version_and_a_revert_another(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=2))).image_set_id
    before = archive.metadata(image_set_id)
    answer = update(
        archive,
        image_set_id,
        "1",
        {
            "DICOMUpdates": {
                "updatableAttributes": change({"Study": {"DICOM": {"StudyDescription": "corrected"}}}),
                "removableAttributes": change({"Study": {"DICOM": {"ReferringPhysicianName": ""}}}),
            }
        },
    )
    assert (answer["latestVersionId"], answer["imageSetWorkflowStatus"]) == ("2", "UPDATING")
    after = archive.metadata(image_set_id)
    assert after["Study"]["DICOM"]["StudyDescription"] == "corrected"
    assert "ReferringPhysicianName" not in after["Study"]["DICOM"]
    assert archive.metadata(image_set_id, versionId="1") == before
    assert archive.search()[0]["DICOMTags"]["DICOMStudyDescription"] == "corrected"
    with pytest.raises(ClientError, match="ConflictException"):
        update(archive, image_set_id, "1", {"revertToVersionId": "1"})
    update(archive, image_set_id, "2", {"revertToVersionId": "1"})
    assert archive.metadata(image_set_id) == before
    versions = archive.client.list_image_set_versions(
        datastoreId=archive.datastore_id, imageSetId=image_set_id
    )
    assert [item["versionId"] for item in versions["imageSetPropertiesList"]] == ["3", "2", "1"]
    assert versions["imageSetPropertiesList"][0]["ImageSetWorkflowStatus"] == "UPDATED"
    first = archive.client.get_image_set(
        datastoreId=archive.datastore_id, imageSetId=image_set_id, versionId="1"
    )
    assert first["imageSetWorkflowStatus"] == "CREATED"


def test_an_instance_can_be_removed(archive: Archive) -> None:
    series = ct_series(slices=2)
    image_set_id = archive.import_files(as_files(series)).image_set_id

    def removal(datasets: list[Any]) -> dict[str, Any]:
        named: dict[str, Any] = {"Instances": {dataset.SOPInstanceUID: {} for dataset in datasets}}
        removed = change({"Study": {"Series": {series[0].SeriesInstanceUID: named}}})
        return {"DICOMUpdates": {"removableAttributes": removed}}

    update(archive, image_set_id, "1", removal(series[:1]))
    (entry,) = instances(archive.metadata(image_set_id))
    assert entry["DICOM"]["SOPInstanceUID"] == series[1].SOPInstanceUID
    with pytest.raises(ClientError, match="cannot lose all its instances"):
        update(archive, image_set_id, "2", removal(series[1:]))


def test_a_non_primary_image_set_can_be_corrected_and_promoted(archive: Archive) -> None:
    first = ct_series(slices=1)
    primary_id = archive.import_files(as_files(first)).image_set_id
    second = ct_series(
        slices=2,
        study_uid=first[0].StudyInstanceUID,
        series_uid=first[0].SeriesInstanceUID,
        PatientID="WRONG",
    )
    wrong_id = archive.import_files(as_files(second)).image_set_id
    information = {"sourceImageSet": {"latestVersionId": "1"}}
    with pytest.raises(ClientError, match=r"ConflictException.*contradicts"):
        archive.client.copy_image_set(
            datastoreId=archive.datastore_id,
            sourceImageSetId=wrong_id,
            copyImageSetInformation=information,
            promoteToPrimary=True,
        )
    correction = change({"Patient": {"DICOM": {"PatientID": first[0].PatientID}}})
    update(archive, wrong_id, "1", {"DICOMUpdates": {"updatableAttributes": correction}})
    answer = archive.client.copy_image_set(
        datastoreId=archive.datastore_id,
        sourceImageSetId=wrong_id,
        copyImageSetInformation={"sourceImageSet": {"latestVersionId": "2"}},
        promoteToPrimary=True,
    )
    destination = answer["destinationImageSetProperties"]
    assert destination["imageSetId"] == primary_id
    assert destination["latestVersionId"] == "2"
    found = list(instances(archive.metadata(primary_id)))
    assert len(found) == 3
    for entry in found:
        archive.frame(primary_id, entry["ImageFrames"][0]["ID"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Study": {"DICOM": {"NoSuchThing": "x"}}}, "not a DICOM attribute"),
        ({"Study": {"DICOM": {"PatientName": "A^B"}}}, "not an attribute of the level study"),
        ({"Study": {"DICOM": {"StudyInstanceUID": "1.2"}}}, "primary image set cannot be changed"),
        ({"Study": {"DICOM": {"StudyDate": "yesterday"}}}, "does not conform"),
        ({"Patient": {"DICOM": {"PatientName": "A^B"}}}, "includeStudyImageSets"),
        ({"Study": {"Series": {"1.2.3": {"DICOM": {"Modality": "MR"}}}}}, "was not found"),
        ({"Nonsense": {}}, "may hold SchemaVersion"),
    ],
)
def test_updates_that_are_refused(archive: Archive, value: dict[str, Any], message: str) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    with pytest.raises(ClientError, match=message):
        update(archive, image_set_id, "1", {"DICOMUpdates": {"updatableAttributes": change(value)}})
    assert (
        archive.client.get_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)["versionId"]
        == "1"
    )


def test_force_changes_identifiers_of_a_non_primary_image_set(archive: Archive) -> None:
    first = ct_series(slices=1)
    archive.import_files(as_files(first))
    second = ct_series(slices=1, study_uid=first[0].StudyInstanceUID, PatientID="WRONG")
    wrong_id = archive.import_files(as_files(second)).image_set_id
    updates = {
        "DICOMUpdates": {"updatableAttributes": change({"Study": {"DICOM": {"StudyInstanceUID": "1.2.3"}}})}
    }
    with pytest.raises(ClientError, match="only be changed with force"):
        update(archive, wrong_id, "1", updates)
    update(archive, wrong_id, "1", updates, force=True)
    assert archive.metadata(wrong_id)["Study"]["DICOM"]["StudyInstanceUID"] == "1.2.3"
    shown = archive.client.get_image_set(datastoreId=archive.datastore_id, imageSetId=wrong_id)
    assert shown["overrides"] == {"forced": True}


def test_a_whole_study_changes_together_or_not_at_all(archive: Archive) -> None:
    first = ct_series(slices=1)
    second = ct_series(slices=1, study_uid=first[0].StudyInstanceUID, SeriesNumber=9)
    report = archive.import_files(as_files([*first, *second]))
    one, other = (item["imageSetId"] for item in report.summary["imageSetsSummary"])
    accession = {
        "DICOMUpdates": {"updatableAttributes": change({"Study": {"DICOM": {"AccessionNumber": "NEW"}}})}
    }
    with pytest.raises(ClientError, match="contradict image set"):
        update(archive, one, "1", accession)
    update(archive, one, "1", accession, includeStudyImageSets=True)
    for image_set_id in (one, other):
        assert archive.metadata(image_set_id)["Study"]["DICOM"]["AccessionNumber"] == "NEW"
    name = {
        "DICOMUpdates": {"updatableAttributes": change({"Patient": {"DICOM": {"PatientName": "No^Name"}}})}
    }
    update(archive, one, "2", name, includeStudyImageSets=True)
    assert {item["version"] for item in archive.search()} == {3}


# Copies, deletes, tags


def test_a_copy_is_a_non_primary_image_set_that_outlives_its_source(archive: Archive) -> None:
    series = ct_series(slices=2)
    source_id = archive.import_files(as_files(series)).image_set_id
    wanted: dict[str, Any] = {"Instances": {series[0].SOPInstanceUID: {}}}
    subset = {"Study": {"Series": {series[0].SeriesInstanceUID: wanted}}}
    answer = archive.client.copy_image_set(
        datastoreId=archive.datastore_id,
        sourceImageSetId=source_id,
        copyImageSetInformation={
            "sourceImageSet": {
                "latestVersionId": "1",
                "DICOMCopies": {"copiableAttributes": json.dumps({"SchemaVersion": "1.1", **subset})},
            }
        },
    )
    assert answer["sourceImageSetProperties"]["imageSetWorkflowStatus"] == "COPYING_WITH_READ_ONLY_ACCESS"
    copy_id = answer["destinationImageSetProperties"]["imageSetId"]
    shown = archive.client.get_image_set(datastoreId=archive.datastore_id, imageSetId=copy_id)
    assert (shown["isPrimary"], shown["imageSetWorkflowStatus"]) == (False, "COPIED")
    archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=source_id)
    (entry,) = instances(archive.metadata(copy_id))
    assert entry["DICOM"]["SOPInstanceUID"] == series[0].SOPInstanceUID
    data, _ = archive.frame(copy_id, entry["ImageFrames"][0]["ID"])
    np.testing.assert_array_equal(imagecodecs.htj2k_decode(data), series[0].pixel_array)


def test_a_copy_into_an_image_set_minds_the_levels(archive: Archive) -> None:
    one = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    other = archive.import_files(as_files(ct_series(slices=2, PatientID="OTHER"))).image_set_id
    request = {
        "datastoreId": archive.datastore_id,
        "sourceImageSetId": other,
        "copyImageSetInformation": {
            "sourceImageSet": {"latestVersionId": "1"},
            "destinationImageSet": {"imageSetId": one, "latestVersionId": "1"},
        },
    }
    with pytest.raises(ClientError, match=r"ConflictException.*differ"):
        archive.client.copy_image_set(**request)
    archive.client.copy_image_set(**request, force=True)
    assert len(list(instances(archive.metadata(one)))) == 3
    assert archive.metadata(one)["Patient"]["DICOM"]["PatientID"] != "OTHER"


def test_a_deleted_image_set_is_gone_with_its_bytes(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=2, size=48))).image_set_id
    folder = archive.cloud.root / "healthimaging" / "content"
    (entry, _) = instances(archive.metadata(image_set_id))
    data, _ = archive.frame(image_set_id, entry["ImageFrames"][0]["ID"])
    assert any(path.read_bytes() == data for path in folder.glob("??/*"))
    answer = archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    assert answer["imageSetWorkflowStatus"] == "DELETING"
    shown = archive.client.get_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    assert (shown["imageSetState"], shown["imageSetWorkflowStatus"]) == ("DELETED", "DELETED")
    assert shown["deletedAt"] is not None
    assert archive.search() == []
    assert not any(path.read_bytes() == data for path in folder.glob("??/*"))
    for call in (
        lambda: archive.metadata(image_set_id),
        lambda: archive.frame(image_set_id, entry["ImageFrames"][0]["ID"]),
        lambda: archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id),
    ):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            call()


def test_image_sets_have_tags(archive: Archive) -> None:
    image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    arn = archive.client.get_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)[
        "imageSetArn"
    ]
    archive.client.tag_resource(resourceArn=arn, tags={"purpose": "test", "owner": "nobody"})
    archive.client.tag_resource(resourceArn=arn, tags={"owner": "somebody"})
    archive.client.untag_resource(resourceArn=arn, tagKeys=["purpose"])
    assert archive.client.list_tags_for_resource(resourceArn=arn)["tags"] == {"owner": "somebody"}
