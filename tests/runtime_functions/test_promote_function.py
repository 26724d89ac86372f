"""The promote function alone: what it takes, what it refuses, and what a candidate says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.functions.promote import handler
from runtime.functions.promote.copies import copy_evaluation, copy_model
from runtime.functions.promote.errors import (
    DifferentModelError,
    MalformedEventError,
    NotOfferedError,
    UnsupportedPackageError,
)
from runtime.functions.promote.package import (
    S3Object,
    Settings,
    candidate,
    evaluation_of,
    model_of,
    source_of,
)

SETTINGS = Settings(
    source_environment="dev",
    source_account="111122223333",
    groups={"monai-dev-lung": "monai-staging-lung"},
    inference_image="222233334444.dkr.ecr.us-east-1.amazonaws.com/images:ours",
    model_bucket="ours",
)
ARN = "arn:aws:sagemaker:us-east-1:111122223333:model-package/monai-dev-lung/7"
REGISTERED = datetime(2027, 3, 1, 12, tzinfo=UTC)
PACKAGE = {
    "CreationTime": REGISTERED,
    "ModelApprovalStatus": "Approved",
    "InferenceSpecification": {
        "Containers": [
            {"Image": "111122223333.dkr.ecr/theirs", "ModelDataUrl": "s3://theirs/training/m.tar.gz"}
        ],
        "SupportedContentTypes": ["application/json"],
        "SupportedResponseMIMETypes": ["application/json"],
    },
    "ModelMetrics": {"ModelQuality": {"Statistics": {"S3Uri": "s3://theirs/evaluation/x/evaluation.json"}}},
    "CustomerMetadataProperties": {"manifestUri": "s3://theirs/manifests/chest.json"},
}


def archive(**files: bytes) -> bytes:
    """A model as training writes it, with these weights."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in {"configs/inference.json": b"{}", **files}.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


class Bucket:
    """As much of S3 as the copies use."""

    def __init__(self, objects: dict[tuple[str, str], bytes]) -> None:
        self.objects = objects
        self.owners: set[str | None] = set()
        self.written: dict[tuple[str, str], datetime] = {}
        """Of objects that are not as old as the package."""
        self.truncate = 0
        self.corrupt = False

    def get_object(self, *, Bucket: str, Key: str, ExpectedBucketOwner: str | None = None) -> dict[str, Any]:
        content = self.objects[Bucket, Key]
        if Bucket == "theirs":
            self.owners.add(ExpectedBucketOwner)
        body = io.BytesIO(content[: len(content) - self.truncate])
        written = self.written.get((Bucket, Key), REGISTERED)
        return {"Body": body, "ContentLength": len(content), "LastModified": written}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self.objects[Bucket, Key] = Body

    def upload_fileobj(self, stream: Any, bucket: str, key: str, ExtraArgs: dict[str, str]) -> None:
        content = b""
        while part := stream.read(7):
            content += part
        self.objects[bucket, key] = content[:-1] + b"\xff" if self.corrupt else content


THEIRS, OURS = S3Object(bucket="theirs", key="m.tar.gz"), S3Object(bucket="ours", key="p/m.tar.gz")
WEIGHTS = {"model.pt": hashlib.sha256(b"weights").hexdigest()}


def copy(s3: Bucket, weights: dict[str, str] = WEIGHTS, sha256: str | None = None) -> str:
    return copy_model(
        s3, THEIRS, OURS, owner="111122223333", registered=REGISTERED, weights=weights, sha256=sha256
    )


def test_a_package_of_an_offered_group_is_taken() -> None:
    source = source_of(ARN, settings=SETTINGS)
    assert (source.group, source.version) == ("monai-dev-lung", "7")
    assert source.folder == "promoted/111122223333/monai-dev-lung/7"


@pytest.mark.parametrize(
    "arn",
    [
        ARN.replace("111122223333", "999999999999"),
        ARN.replace("monai-dev-lung", "monai-dev-liver"),
        ARN.replace("monai-dev-lung/7", "monai-dev-lung"),
        ARN + "/../../8",
        "monai-dev-lung/7",
    ],
)
def test_nothing_else_is(arn: str) -> None:
    with pytest.raises(NotOfferedError):
        source_of(arn, settings=SETTINGS)


def test_a_candidate_waits_for_a_person_runs_in_our_image_and_says_where_it_is_from() -> None:
    request = candidate(
        PACKAGE,
        source=source_of(ARN, settings=SETTINGS),
        settings=SETTINGS,
        model=OURS,
        evaluation=S3Object(bucket="ours", key="p/evaluation.json"),
        sha256="ab",
    )
    assert request["ModelApprovalStatus"] == "PendingManualApproval"
    assert request["ModelPackageGroupName"] == "monai-staging-lung"
    assert request["InferenceSpecification"]["Containers"] == [
        {"Image": SETTINGS.inference_image, "ModelDataUrl": "s3://ours/p/m.tar.gz"}
    ]
    assert request["CustomerMetadataProperties"] == {
        "sourceModelPackageArn": ARN,
        "sourceEnvironment": "dev",
        "sourceModelDataUrl": "s3://theirs/training/m.tar.gz",
        "modelSha256": "ab",
        "trainedModelPackageArn": ARN,
        "manifestUri": "s3://theirs/manifests/chest.json",
    }
    assert "theirs" not in json.dumps(request["InferenceSpecification"])


def test_where_a_model_was_trained_survives_a_second_promotion() -> None:
    first = "arn:aws:sagemaker:us-east-1:000000000001:model-package/first/1"
    package = {**PACKAGE, "CustomerMetadataProperties": {"trainedModelPackageArn": first}}
    request = candidate(
        package,
        source=source_of(ARN, settings=SETTINGS),
        settings=SETTINGS,
        model=OURS,
        evaluation=OURS,
        sha256="ab",
    )
    assert request["CustomerMetadataProperties"]["trainedModelPackageArn"] == first
    assert request["CustomerMetadataProperties"]["sourceModelPackageArn"] == ARN


def test_the_request_is_one_that_sagemaker_knows() -> None:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    request = candidate(
        PACKAGE,
        source=source_of(ARN, settings=SETTINGS),
        settings=SETTINGS,
        model=OURS,
        evaluation=OURS,
        sha256="ab",
    )
    shape = get_session().get_service_model("sagemaker").operation_model("CreateModelPackage").input_shape
    assert not ParamValidator().validate(request, shape).has_errors()
    assert len(request["ClientToken"]) <= 36


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("InferenceSpecification", {"Containers": []}),
        ("InferenceSpecification", {"Containers": [{"Image": "a"}]}),
        ("InferenceSpecification", {"Containers": [{"ModelDataUrl": "s3://b/k"}] * 2}),
        ("InferenceSpecification", {"Containers": [{"ModelDataUrl": "https://b/k"}]}),
    ],
)
def test_a_package_without_one_model_is_refused(part: str, value: Any) -> None:
    with pytest.raises(UnsupportedPackageError):
        model_of({**PACKAGE, part: value})


def test_a_package_without_an_evaluation_is_refused() -> None:
    with pytest.raises(UnsupportedPackageError):
        evaluation_of({**PACKAGE, "ModelMetrics": {}})


def test_the_copy_has_the_weights_that_were_evaluated() -> None:
    content = archive(**{"models/model.pt": b"weights"})
    s3 = Bucket({("theirs", "m.tar.gz"): content})
    assert copy(s3) == hashlib.sha256(content).hexdigest()
    assert s3.objects["ours", "p/m.tar.gz"] == content
    assert s3.owners == {"111122223333"}


@pytest.mark.parametrize(
    "content",
    [
        archive(**{"models/model.pt": b"other weights"}),
        archive(**{"models/model.pt": b"weights", "models/model.ts": b"one more"}),
        archive(),
        b"no archive",
    ],
)
def test_other_weights_are_refused(content: bytes) -> None:
    with pytest.raises(DifferentModelError):
        copy(Bucket({("theirs", "m.tar.gz"): content}))


def test_a_copy_that_differs_is_refused() -> None:
    s3 = Bucket({("theirs", "m.tar.gz"): archive(**{"models/model.pt": b"weights"})})
    s3.corrupt = True
    with pytest.raises(DifferentModelError):
        copy(s3)


def test_an_archive_of_the_same_weights_that_was_not_evaluated_is_refused() -> None:
    """A configuration decides where a mask lies, and it is no weight."""
    evaluated = archive(**{"models/model.pt": b"weights"})
    other = archive(**{"models/model.pt": b"weights", "configs/metadata.json": b"{}"})
    sha256 = hashlib.sha256(evaluated).hexdigest()
    assert copy(Bucket({("theirs", "m.tar.gz"): evaluated}), sha256=sha256) == sha256
    with pytest.raises(DifferentModelError, match="is not the archive that was evaluated"):
        copy(Bucket({("theirs", "m.tar.gz"): other}), sha256=sha256)


def test_a_transfer_that_ends_early_is_refused() -> None:
    s3 = Bucket({("theirs", "m.tar.gz"): archive(**{"models/model.pt": b"weights"})})
    s3.truncate = 3
    with pytest.raises(DifferentModelError, match="ended after"):
        copy(s3)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b'{"weights": {}}', b'{"weights": "all"}', b"\xff"),
        b'{"weights": {"model.ts": "ab"}, "modelArchive": "all"}',
        b'{"weights": {"model.ts": "ab"}, "modelArchive": {"uri": "s3://theirs/m.tar.gz"}}',
    ],
)
def test_an_evaluation_that_names_no_weights_is_refused(content: bytes) -> None:
    s3 = Bucket({("theirs", "e.json"): content})
    with pytest.raises(UnsupportedPackageError):
        copy_evaluation(
            s3, S3Object(bucket="theirs", key="e.json"), OURS, owner="111122223333", registered=REGISTERED
        )
    assert ("ours", OURS.key) not in s3.objects


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"detail": {}}', '{"detail": {"ModelPackageArn": 7}}'])
def test_a_message_that_names_no_package_is_refused(body: str) -> None:
    with pytest.raises(MalformedEventError):
        handler.package_arn_of(body)


class Registry:
    """As much of SageMaker as one promotion asks."""

    def __init__(self, *, status: str = "Approved", here: tuple[str, ...] = ()) -> None:
        self.status, self.here = status, here
        self.created: list[dict[str, Any]] = []

    def get_paginator(self, name: str) -> Any:
        assert name == "list_model_packages"
        return self

    def paginate(self, *, ModelPackageGroupName: str) -> list[dict[str, Any]]:
        assert ModelPackageGroupName == "monai-staging-lung"
        summaries = [{"ModelPackageDescription": text, "ModelPackageArn": "here/1"} for text in self.here]
        return [
            {"ModelPackageSummaryList": [{"ModelPackageArn": "here/0"}]},
            {"ModelPackageSummaryList": summaries},
        ]

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:
        assert ModelPackageName == ARN
        return {**PACKAGE, "ModelApprovalStatus": self.status}

    def create_model_package(self, **request: Any) -> dict[str, str]:
        self.created.append(request)
        return {"ModelPackageArn": "here/2"}


def full_bucket() -> Bucket:
    return Bucket(
        {
            ("theirs", "training/m.tar.gz"): archive(**{"models/model.pt": b"weights"}),
            ("theirs", "evaluation/x/evaluation.json"): json.dumps({"weights": WEIGHTS}).encode(),
        }
    )


def test_an_approved_package_becomes_a_candidate() -> None:
    registry, s3 = Registry(), full_bucket()
    assert handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3) == "here/2"
    (request,) = registry.created
    folder, model, evaluation = copied_to(request)
    assert folder.startswith("promoted/111122223333/monai-dev-lung/7/")
    assert s3.objects["ours", f"{folder}/{model}"] == s3.objects["theirs", "training/m.tar.gz"]
    assert ("ours", f"{folder}/{evaluation}") in s3.objects


def test_the_evaluations_hash_of_the_archive_is_what_a_candidate_must_have() -> None:
    registry, s3 = Registry(), full_bucket()
    measured = hashlib.sha256(s3.objects["theirs", "training/m.tar.gz"]).hexdigest()
    for sha256, candidates in (("0" * 64, 0), (measured, 1)):
        evaluation = {
            "schema": "monai-on-aws/evaluation/2",
            "weights": WEIGHTS,
            "modelArchive": {"sha256": sha256, "uri": "s3://theirs/training/m.tar.gz"},
        }
        s3.objects["theirs", "evaluation/x/evaluation.json"] = json.dumps(evaluation).encode()
        if candidates:
            handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3)
        else:
            with pytest.raises(DifferentModelError):
                handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3)
        assert len(registry.created) == candidates


def copied_to(request: dict[str, Any]) -> tuple[str, str, str]:
    """The folder that a candidate names, and the names of its model and its evaluation there."""
    model = request["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    evaluation = request["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    folder, _, name = model.removeprefix("s3://ours/").rpartition("/")
    assert evaluation.startswith(f"s3://ours/{folder}/")
    return folder, name, evaluation.rpartition("/")[2]


@pytest.mark.parametrize("exchanged", ["training/m.tar.gz", "evaluation/x/evaluation.json"])
def test_what_is_younger_than_its_package_is_not_what_was_approved(exchanged: str) -> None:
    """The weights may be the same: a configuration decides where a mask lies, and it is no weight."""
    registry, s3 = Registry(), full_bucket()
    s3.written["theirs", exchanged] = REGISTERED + timedelta(seconds=1)
    with pytest.raises(DifferentModelError, match="after the package was registered"):
        handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3)
    assert not registry.created


def test_another_attempt_cannot_exchange_what_this_one_has_verified() -> None:
    """The same approval is announced twice; between both, the model is exchanged where it comes from."""
    registry, s3 = Registry(), full_bucket()
    approved = s3.objects["theirs", "training/m.tar.gz"]
    register = registry.create_model_package

    def while_another_attempt_runs(**request: Any) -> dict[str, str]:
        s3.objects["theirs", "training/m.tar.gz"] = archive(**{"models/model.pt": b"other weights"})
        with pytest.raises(DifferentModelError):
            handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3)
        return register(**request)

    registry.create_model_package = while_another_attempt_runs  # type: ignore[method-assign]  # answers differently for once
    handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3)
    (request,) = registry.created
    folder, model, _ = copied_to(request)
    assert s3.objects["ours", f"{folder}/{model}"] == approved


def test_a_package_that_is_a_candidate_already_is_left_alone() -> None:
    registry, s3 = Registry(here=(f"Candidate from {ARN}",)), full_bucket()
    before = dict(s3.objects)
    assert handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3) is None
    assert not registry.created
    assert s3.objects == before


@pytest.mark.parametrize("status", ["Rejected", "PendingManualApproval"])
def test_a_package_that_is_no_longer_approved_is_left_alone(status: str) -> None:
    registry, s3 = Registry(status=status), full_bucket()
    assert handler.promote(ARN, settings=SETTINGS, sagemaker=registry, s3=s3) is None
    assert not registry.created


def test_a_message_that_fails_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {
        "SOURCE_ENVIRONMENT": "dev",
        "SOURCE_ACCOUNT": "111122223333",
        "GROUPS": json.dumps({"monai-dev-lung": "monai-staging-lung"}),
        "INFERENCE_IMAGE": "image",
        "MODEL_BUCKET": "ours",
    }.items():
        monkeypatch.setenv(name, value)
    registry, s3 = Registry(), full_bucket()
    monkeypatch.setattr(handler.boto3, "client", {"sagemaker": registry, "s3": s3}.__getitem__)
    other = ARN.replace("111122223333", "999999999999")
    records = [
        {"messageId": "bad", "body": "no json"},
        {"messageId": "foreign", "body": json.dumps({"detail": {"ModelPackageArn": other}})},
        {"messageId": "good", "body": json.dumps({"detail": {"ModelPackageArn": ARN}})},
    ]
    failures = handler.handle({"Records": records}, None)["batchItemFailures"]
    assert failures == [{"itemIdentifier": "bad"}, {"itemIdentifier": "foreign"}]
    assert len(registry.created) == 1
    assert "NotOfferedError" in caplog.text
