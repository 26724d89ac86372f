"""Reading image sets is quick, and never from a memory of what was true before."""

from __future__ import annotations

import gzip
import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cloud_under_test import CloudUnderTest, free_port
from healthimaging_archive import Archive, as_files, ct_series, instances
from role_sessions import ACCOUNT, make_role, refused, session

from local.healthimaging.metadata_store import MetadataStore

READS = [
    f"medical-imaging:{operation}" for operation in ("GetImageFrame", "GetImageSet", "GetImageSetMetadata")
]


@pytest.fixture
def archive(cloud: Any) -> Archive:
    return Archive.create(cloud)


@pytest.fixture
def image_set_id(archive: Archive) -> str:
    return archive.import_files(as_files(ct_series(slices=2))).image_set_id


def frame_ids(metadata: dict[str, Any]) -> list[str]:
    return [frame["ID"] for instance in instances(metadata) for frame in instance["ImageFrames"]]


def reads_of(
    client: Any, archive: Archive, image_set_id: str, frame_id: str
) -> list[tuple[Any, dict[str, Any]]]:
    """The three calls, with their parameters."""
    ids = {"datastoreId": archive.datastore_id, "imageSetId": image_set_id}
    return [
        (client.get_image_frame, {**ids, "imageFrameInformation": {"imageFrameId": frame_id}}),
        (client.get_image_set, ids),
        (client.get_image_set_metadata, ids),
    ]


def code_of(call: Any, parameters: dict[str, Any]) -> str:
    """The code of the error that a call must end in."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}
    )


def test_permission_that_is_taken_away_or_given_back_counts_for_the_next_read(
    cloud: Any, archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    name = f"frames-{archive.datastore_id[:8]}"
    allowed = {"Action": READS, "Resource": "*"}
    client = session(cloud, make_role(cloud, name, allowed), "medical-imaging")
    iam = cloud.client("iam")
    calls = reads_of(client, archive, image_set_id, frame_id)
    for _ in range(2):
        for call, parameters in calls:
            call(**parameters)
        iam.delete_role_policy(RoleName=name, PolicyName="work")
        for call, parameters in calls:
            assert f"assumed-role/{name}/tester is not authorized" in refused(call, **parameters)
        iam.put_role_policy(RoleName=name, PolicyName="work", PolicyDocument=policy(allowed))
    for call, parameters in calls:
        call(**parameters)


def test_a_new_version_of_a_managed_policy_counts_for_the_next_read(
    cloud: Any, archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    iam, name = cloud.client("iam"), f"managed-{archive.datastore_id[:8]}"
    role = make_role(cloud, name, {"Action": "s3:ListAllMyBuckets", "Resource": "*"})
    document = policy({"Action": READS, "Resource": "*"})
    arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
    client = session(cloud, role, "medical-imaging")
    call, parameters = reads_of(client, archive, image_set_id, frame_id)[0]
    refused(call, **parameters)
    iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    call(**parameters)
    narrow = policy({"Action": READS[1:], "Resource": "*"})
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=narrow, SetAsDefault=True)
    refused(call, **parameters)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
    call(**parameters)
    iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    refused(call, **parameters)


def test_datastore_and_image_set_must_both_be_allowed(
    cloud: Any, archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    other = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    datastore = f"arn:aws:medical-imaging:us-east-1:{ACCOUNT}:datastore/{archive.datastore_id}"
    allowed = {"Action": READS, "Resource": [datastore, f"{datastore}/imageset/{image_set_id}"]}
    client = session(cloud, make_role(cloud, f"both-{other[:8]}", allowed), "medical-imaging")
    for call, parameters in reads_of(client, archive, image_set_id, frame_id):
        call(**parameters)
        assert f"{datastore}/imageset/{other}" in refused(call, **{**parameters, "imageSetId": other})
    only = {"Action": READS, "Resource": f"{datastore}/imageset/*"}
    client = session(cloud, make_role(cloud, f"only-{other[:8]}", only), "medical-imaging")
    for call, parameters in reads_of(client, archive, image_set_id, frame_id):
        assert refused(call, **parameters).split("on resource: ")[1].startswith(f"{datastore} ")


def test_image_set_that_was_deleted_is_not_found_by_the_next_read(
    archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    frame, properties, metadata = reads_of(archive.client, archive, image_set_id, frame_id)
    for call, parameters in (frame, properties, metadata):
        call(**parameters)
    archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    assert code_of(*frame) == "ResourceNotFoundException"
    assert code_of(*metadata) == "ResourceNotFoundException"
    assert properties[0](**properties[1])["imageSetState"] == "DELETED"


def test_datastore_that_was_deleted_is_not_found_by_the_next_read(
    archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    calls = reads_of(archive.client, archive, image_set_id, frame_id)
    for call, parameters in calls:
        call(**parameters)
    archive.client.delete_image_set(datastoreId=archive.datastore_id, imageSetId=image_set_id)
    archive.client.delete_datastore(datastoreId=archive.datastore_id)
    for call, parameters in calls:
        assert code_of(call, parameters) == "ResourceNotFoundException"


def test_frame_is_found_only_in_its_own_image_set_and_datastore(archive: Archive, image_set_id: str) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    other = archive.import_files(as_files(ct_series(slices=1))).image_set_id
    elsewhere = Archive.create(archive.cloud)
    call, parameters = reads_of(archive.client, archive, image_set_id, frame_id)[0]
    call(**parameters)
    assert code_of(call, {**parameters, "imageSetId": other}) == "ResourceNotFoundException"
    assert code_of(call, {**parameters, "datastoreId": elsewhere.datastore_id}) == "ResourceNotFoundException"
    unknown = {"imageFrameId": "0" * 32}
    assert code_of(call, {**parameters, "imageFrameInformation": unknown}) == "ResourceNotFoundException"


def test_instance_that_is_imported_again_is_read_as_it_is_now(archive: Archive) -> None:
    series = ct_series(slices=2)
    image_set_id = archive.import_files(as_files(series)).image_set_id
    before = archive.metadata(image_set_id)
    assert archive.metadata(image_set_id) == before
    old = {frame_id: archive.frame(image_set_id, frame_id) for frame_id in frame_ids(before)}
    series[0].PixelData = bytes(len(series[0].PixelData))
    assert archive.import_files(as_files(series[:1])).image_set_id == image_set_id
    after = archive.metadata(image_set_id)
    (new,) = set(frame_ids(after)) - set(frame_ids(before))
    assert archive.frame(image_set_id, new) not in old.values()
    assert archive.metadata(image_set_id, versionId="1") == before
    assert {frame_id: archive.frame(image_set_id, frame_id) for frame_id in old} == old


@pytest.mark.slow
def test_limits_count_reads_that_are_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "LOCAL_HEALTHIMAGING_LIMITS", "GetImageFrame=0.001/3,GetImageSet=0.001/2,GetImageSetMetadata=0.001/4"
    )
    limited = CloudUnderTest(root=tmp_path / "cloud", port=free_port())
    limited.start()
    try:
        archive = Archive.create(limited)
        image_set_id = archive.import_files(as_files(ct_series(slices=1))).image_set_id
        (frame_id,) = frame_ids(archive.metadata(image_set_id))
        frame, properties, metadata = reads_of(archive.client, archive, image_set_id, frame_id)
        for (call, parameters), most in ((frame, 3), (properties, 2), (metadata, 3)):
            for _ in range(most):
                call(**parameters)
            assert code_of(call, parameters) == "ThrottlingException"
    finally:
        limited.stop()


# The connection


def signed(cloud: Any, path: str, body: bytes, credentials: Credentials, **headers: str) -> dict[str, str]:
    request: Any = AWSRequest(
        "POST", cloud.endpoint_url + path, data=body, headers={"Content-Type": "application/json", **headers}
    )
    SigV4Auth(credentials, "medical-imaging", cloud.region).add_auth(request)
    return dict(request.headers.items())


def test_requests_on_one_connection_are_each_their_own_callers(
    cloud: Any, archive: Archive, image_set_id: str
) -> None:
    (frame_id, *_) = frame_ids(archive.metadata(image_set_id))
    path = f"/datastore/{archive.datastore_id}/imageSet/{image_set_id}/getImageFrame"
    body = json.dumps({"imageFrameId": frame_id}).encode()
    name = f"nobody-{image_set_id[:8]}"
    role = make_role(cloud, name, {"Action": "s3:ListAllMyBuckets", "Resource": "*"})
    made = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="tester")["Credentials"]
    root = signed(cloud, path, body, Credentials("test", "test"))
    nobody = signed(
        cloud,
        path,
        body,
        Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]),
    )
    forged = {**nobody, "Authorization": nobody["Authorization"][:-4] + "0000"}
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    for headers, status in ((root, 200), (nobody, 403), (root, 200), ({}, 403), (forged, 403), (root, 200)):
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
    connection.close()


def test_address_that_a_client_claims_to_have_is_not_believed(
    cloud: Any, archive: Archive, image_set_id: str
) -> None:
    claimed, name = "203.0.113.7", f"address-{image_set_id[:8]}"
    condition = {"IpAddress": {"aws:SourceIp": f"{claimed}/32"}}
    role = make_role(cloud, name, {"Action": READS, "Resource": "*", "Condition": condition})
    made = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="tester")["Credentials"]
    path = f"/datastore/{archive.datastore_id}/imageSet/{image_set_id}/getImageSet"
    headers = signed(
        cloud,
        path,
        b"",
        Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"]),
        **{"X-Forwarded-For": claimed},
    )
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    connection.request("POST", path, body=b"", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 403
    assert b"is not authorized to perform: medical-imaging:GetImageSet" in answer.read()
    connection.close()


def test_request_that_does_not_name_its_host_is_refused(cloud: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", cloud.port)
    connection.putrequest("GET", "/_local/status", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


# What is kept


def test_metadata_is_kept_up_to_a_number_of_bytes() -> None:
    store = MetadataStore(10)
    store.put("a", 1, b"1234")
    store.put("b", 1, b"5678")
    assert store.get("a", 1) == b"1234"  # and b is now the one that was not asked for longest
    store.put("c", 1, b"9012")
    assert (store.get("a", 1), store.get("b", 1), store.get("c", 1)) == (b"1234", None, b"9012")
    store.put("a", 1, b"12")
    store.put("d", 1, b"3456")
    assert [("a", 1) in store, ("c", 1) in store, ("d", 1) in store] == [True, True, True]
    store.put("e", 1, b"more than ten bytes")
    assert not any((name, 1) in store for name in "acde")


def test_metadata_is_the_same_when_it_is_given_again(archive: Archive, image_set_id: str) -> None:
    ids = {"datastoreId": archive.datastore_id, "imageSetId": image_set_id}
    answers = [archive.client.get_image_set_metadata(**ids) for _ in range(3)]
    blobs = [answer["imageSetMetadataBlob"].read() for answer in answers]
    assert blobs[0] == blobs[1] == blobs[2]
    assert {(answer["contentType"], answer["contentEncoding"]) for answer in answers} == {
        ("application/json", "gzip")
    }
    assert json.loads(gzip.decompress(blobs[0]))["ImageSetID"] == image_set_id
