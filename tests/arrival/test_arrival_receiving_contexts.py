"""Which SOP classes and transfer syntaxes a receiver agrees to, asked by a device (PS3.8 section 9.3.2)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom.sop_class import (
    BasicFilmSession,
    CTImageStorage,
    InventoryFind,
    MediaStorageDirectoryStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelMove,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from receiving_world import Front, associated, data_set_bytes, front, statuses, until, write_study

from arrival.receiving.contexts import takes

PRIVATE = "1.2.276.0.7230010.9.1"
RETIRED = "1.2.840.10008.5.1.4.1.1.5"
"""Nuclear Medicine Image Storage of 1993."""
OTHERS = (
    StudyRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    ModalityWorklistInformationFind,
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    BasicFilmSession,
    InventoryFind,
    MediaStorageDirectoryStorage,
)
"""Services that are not storage; the inventory's UID begins like those of storage."""

JPEG, RLE, DEFLATED = str(JPEGBaseline8Bit), str(RLELossless), str(DeflatedExplicitVRLittleEndian)
IMPLICIT, EXPLICIT = str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)
CT = str(CTImageStorage)
COMPRESSED = (
    "CT_small.dcm",
    "JPEG2000.dcm",
    "JPEG-LL.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "image_dfl.dcm",
    "ExplVR_BigEnd.dcm",
    "693_J2KR.dcm",
)
"""One of each family of transfer syntaxes among pydicom's files."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Front]:
    with front() as listening:
        yield listening


@pytest.mark.parametrize(
    ("proposed", "agreed"),
    [
        ([[JPEG, IMPLICIT]], [JPEG]),
        ([[IMPLICIT, JPEG]], [IMPLICIT]),
        ([[RLE, JPEG, EXPLICIT, IMPLICIT]], [RLE]),
        ([["1.2.840.113619.5.2", DEFLATED, IMPLICIT]], [DEFLATED]),
        ([[IMPLICIT], [JPEG, IMPLICIT]], [IMPLICIT, JPEG]),
        ([[JPEG, RLE], [RLE, JPEG]], [JPEG, RLE]),
    ],
    ids=["jpeg-first", "jpeg-last", "rle", "unknown-first", "a-second-context", "against-each-other"],
)
def test_each_context_gets_the_first_transfer_syntax_of_the_device(
    receiver: Front, proposed: list[list[str]], agreed: list[str]
) -> None:
    """A device that has JPEG would have to decompress if the receiver's order counted."""
    with associated(receiver.port, *((CT, syntaxes) for syntaxes in proposed)) as association:
        assert [one.transfer_syntax for one in association.accepted_contexts] == [[one] for one in agreed]


def test_a_transfer_syntax_that_nobody_knows_is_refused(receiver: Front) -> None:
    with associated(receiver.port, (CT, ["1.2.840.113619.5.2"]), (CT, [EXPLICIT])) as association:
        assert [one.context_id for one in association.accepted_contexts] == [3]
        [refused] = association.rejected_contexts
        assert refused.status == "Transfer Syntax(es) Not Supported"


@pytest.mark.parametrize("sop_class", [PRIVATE, RETIRED, CT])
def test_instances_of_private_and_retired_classes_are_stored_as_they_were_sent(
    receiver: Front, tmp_path: Path, sop_class: str
) -> None:
    (file,) = write_study(tmp_path, study=f"1.2.600.{len(receiver.stored)}", count=1)
    dataset = pydicom.dcmread(file)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.save_as(file)
    before = set(receiver.stored)
    with associated(receiver.port, (sop_class, [EXPLICIT])) as association:
        assert association.send_c_store(dataset).Status == 0
    [key] = set(receiver.stored) - before
    assert data_set_bytes(receiver.stored[key]) == data_set_bytes(file.read_bytes())


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_is_stored_is_what_was_sent_whatever_its_transfer_syntax(receiver: Front, name: str) -> None:
    file = Path(get_testdata_file(name))
    before = set(receiver.stored)
    assert set(statuses([file], port=receiver.port).values()) == {0}
    [key] = set(receiver.stored) - before
    source, ours = pydicom.dcmread(file), pydicom.dcmread(BytesIO(receiver.stored[key]))
    assert ours.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    assert ours.PixelData == source.PixelData
    # The client leaves out lengths of groups, which are retired.
    sent = {tag: value for tag, value in source.to_json_dict().items() if not tag.endswith("0000")}
    assert ours.to_json_dict() == sent


def test_other_services_are_refused_and_told(receiver: Front, caplog: pytest.LogCaptureFixture) -> None:
    proposed = [(str(uid), [IMPLICIT]) for uid in (*OTHERS, Verification, PRIVATE)]
    with caplog.at_level(logging.WARNING), associated(receiver.port, *proposed) as association:
        accepted = [one.abstract_syntax for one in association.accepted_contexts]
        assert accepted == [Verification, PRIVATE]
        assert {one.abstract_syntax for one in association.rejected_contexts} == set(OTHERS)
        assert association.send_c_echo().Status == 0
    assert all(str(uid) in caplog.text for uid in OTHERS)
    assert PRIVATE not in caplog.text


def test_a_query_under_a_private_class_ends_its_association_alone(receiver: Front) -> None:
    """Its UID does not say that it is no storage; the receiver answers nothing else."""
    with associated(receiver.port, (PRIVATE, [IMPLICIT])) as association:
        query = pydicom.Dataset()
        query.PatientID = "*"
        answers = [status for status, _ in association.send_c_find(query, PRIVATE)]
        assert all(getattr(status, "Status", None) != 0 for status in answers)
        until(lambda: association.is_aborted)
    with associated(receiver.port) as again:
        assert again.send_c_echo().Status == 0


def test_the_services_themselves_and_nonsense_are_no_storage() -> None:
    for uid in ("1.2.840.10008.4.2", "1.2.840.10008.3.1.1.1", "1.2.840.10008.1.1", *OTHERS):
        assert not takes(str(uid)), uid
