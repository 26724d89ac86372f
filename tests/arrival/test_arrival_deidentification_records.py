"""Key, reports and sealed records, and the way back for those who may go it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloud_under_test import CloudUnderTest
from deidentified_files import KEY, outcomes, passed

from arrival.deidentification.key import KeyMaterial, key_of_secret
from arrival.deidentification.keyed import Keyed
from arrival.deidentification.outcome import Identity
from arrival.deidentification.reidentification import PREFIX, seal, unseal
from arrival.deidentification.report import StudyReports
from arrival.errors import KeyMaterialError, SealedRecordError
from workbench.deployment import Deployment
from workbench.environment import Environment, LocalEndpoint
from workbench.reidentify import NothingRecorded, reidentify
from workbench.session import Session

TEMPLATE = {
    "Resources": {
        "Bucket": {"Type": "AWS::S3::Bucket"},
        "Key": {
            "Type": "AWS::SecretsManager::Secret",
            "Properties": {"GenerateSecretString": {"PasswordLength": 64, "ExcludePunctuation": True}},
        },
    },
    "Outputs": {
        "ImportBucketName": {"Value": {"Ref": "Bucket"}},
        "DeidentificationKeySecretArn": {"Value": {"Ref": "Key"}},
    },
}


def identities() -> list[Identity]:
    return [answer.identity for _, _, answer in passed()]


def test_a_key_is_long_and_never_shown() -> None:
    for text in ("", "short", "x" * 64, " " * 40):
        with pytest.raises(KeyMaterialError) as caught:
            KeyMaterial.from_secret(text)
        assert not text.strip() or text not in str(caught.value)
    assert repr(KEY) == "KeyMaterial(...)"
    assert KEY.subkey("uid") != KEY.subkey("dates") != KEY.pseudonym("uid")
    assert KeyMaterial.from_secret("a key of tests, and of nothing else at all\n") == KEY


def test_a_record_opens_with_its_key_only_and_shows_nothing_closed() -> None:
    people = identities()
    sealed = seal(people, key=KEY)
    assert set(unseal(sealed, key=KEY)) == set(people)
    for one in people:
        assert one.original_sop_instance_uid.encode() not in sealed
        assert one.original_patient_id not in repr(one) or len(one.original_patient_id) < 4
    with pytest.raises(SealedRecordError, match="another key"):
        unseal(sealed, key=KeyMaterial.from_secret("another key, which is as long as it must be"))
    with pytest.raises(SealedRecordError, match="damaged"):
        unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), key=KEY)
    with pytest.raises(SealedRecordError, match="not a re-identification record"):
        unseal(b"PK\3\4", key=KEY)


def test_the_report_of_a_study_counts_by_rule_and_shows_no_original() -> None:
    reports = StudyReports()
    for _, outcome in outcomes().values():
        reports.add(outcome)
    documents = reports.documents()
    text = json.dumps(documents)
    for _, original, _ in passed():
        assert str(original.StudyInstanceUID) not in text
    one: Any = documents[Keyed(KEY).uid(outcomes()["test_files/CT_small.dcm"][0].StudyInstanceUID)]
    assert one["table"] == {
        "standard": "DICOM PS3.15 2026c Table E.1-1",
        "library": "dicom-anonymizer",
        "version": "2.1.0",
    }
    assert one["options"]["shift_dates"] is True
    assert sum(one["changesByRule"].values()) == sum(row["count"] for row in one["changes"])
    assert {
        "rule": "date shift",
        "tag": "(0008,0020)",
        "keyword": "StudyDate",
        "count": one["instances"],
    } in one["changes"]
    assert documents["no-study"]["quarantineReasons"]
    total = sum(int(str(d["instances"])) + int(str(d["quarantined"])) for d in documents.values())
    assert total == len(outcomes())


def test_who_may_read_records_and_key_finds_the_way_back(cloud: CloudUnderTest) -> None:
    deployment = deployed(cloud, name="reidentify")
    data = deployment.stack("data")
    key = key_of_secret(cloud.client("secretsmanager"), data["DeidentificationKeySecretArn"])
    people = identities()
    studies = {one.study_instance_uid for one in people}
    s3 = cloud.client("s3")
    for study in studies:
        body = seal([one for one in people if one.study_instance_uid == study], key=key)
        s3.put_object(Bucket=data["ImportBucketName"], Key=f"{PREFIX}{study}/run.sealed", Body=body)
    wanted = people[0]
    of_study = reidentify(deployment, wanted.study_instance_uid)
    assert set(of_study) == {one for one in people if one.study_instance_uid == wanted.study_instance_uid}
    of_patient = reidentify(deployment, wanted.patient_id)
    assert set(of_patient) == {one for one in people if one.patient_id == wanted.patient_id}
    with pytest.raises(NothingRecorded):
        reidentify(deployment, "2.25.1")
    with pytest.raises(KeyMaterialError, match="ResourceNotFoundException"):
        key_of_secret(cloud.client("secretsmanager"), "no-such-secret")
    cloud.client("secretsmanager").put_secret_value(
        SecretId=data["DeidentificationKeySecretArn"], SecretString="f" * 20 + "another key of tests"
    )
    for which in (wanted.study_instance_uid, wanted.patient_id):
        with pytest.raises(SealedRecordError) as refused:
            reidentify(deployment, which)
        assert "--version-stage" in refused.value.advice
    assert reidentify(deployment, wanted.study_instance_uid, version_stage="AWSPREVIOUS") == of_study
    # A record of today does not hide those of yesterday.
    now = key_of_secret(cloud.client("secretsmanager"), data["DeidentificationKeySecretArn"])
    s3.put_object(
        Bucket=data["ImportBucketName"], Key=f"{PREFIX}2.25.7/run.sealed", Body=seal(people[:1], key=now)
    )
    told: list[str] = []
    again = reidentify(deployment, wanted.patient_id, version_stage="AWSPREVIOUS", progress=told.append)
    assert again == of_patient
    assert told[0].startswith("1 records did not open")


def deployed(cloud: CloudUnderTest, *, name: str) -> Deployment:
    environment = Environment(
        name=name,
        account=cloud.account_id,
        region=cloud.region,
        local=LocalEndpoint(
            endpoint_url=cloud.endpoint_url,
            access_key_id=cloud.access_key_id,
            secret_access_key=cloud.secret_access_key,
            docker=None,
        ),
    )
    cloudformation = cloud.client("cloudformation")
    stack = environment.stack_name("data")
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(TEMPLATE))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    return Deployment(Session(environment))
