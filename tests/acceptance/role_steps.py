"""What each role is for, as pieces of work that succeed with the role's permissions and fail without one.

The work is the product's own: its import, its functions, its containers, its pipeline. A step raises if it
did not succeed, with all that a person could read about why.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from role_training import StepFailed
from role_world import RoleWorld

from healthimaging.reference import ImageSetRef
from workbench.ingest import Options, ingest
from workbench.predicting.predict import predict

Step = Callable[[RoleWorld], object]

_SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


def import_files(world: RoleWorld) -> None:
    """HealthImaging imports the patient's files from the inbox."""
    report = ingest(world.deployment, world.study.images, options=Options(again=True))
    if not report.ok:
        raise StepFailed(str([one.reason for one in report.failed]))


def index_image_set(world: RoleWorld) -> None:
    """The index function writes the rows of an image set."""
    event = world.message("Image Set Created", world.image_set[1])
    world.invoke_function(("catalog", "IndexFunctionName"), event)


def compact_catalog(world: RoleWorld) -> None:
    """The compact function merges what has been indexed."""
    _lose_compacted_rows(world)
    index_image_set(world)
    done = world.invoke_function(("catalog", "CompactFunctionName"), _SCHEDULED)
    if not done["statements"]:
        raise StepFailed("nothing was compacted")


def reconcile_catalog(world: RoleWorld) -> None:
    """The catalog's reconcile function has indexed what the catalog does not have."""
    try:
        _reconcile_what_was_lost(world)
    finally:
        # Where it was kept from its work: other steps ask the catalog, too.
        index_image_set(world)


def _reconcile_what_was_lost(world: RoleWorld) -> None:
    _lose_compacted_rows(world)
    s3, bucket = world.client("s3"), world.deployment.stack("catalog")["CatalogBucketName"]
    datastore_id, image_set_id = world.image_set[0], world.image_set[1]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"changes/series/{datastore_id}/{image_set_id}/")
    for key in ("comparison/cursor.json", *(one["Key"] for one in listed.get("Contents", []))):
        # The comparison begins anew, and the catalog knows nothing of the image set.
        s3.delete_object(Bucket=bucket, Key=key)
    found = world.invoke_function(("catalog", "ReconcileCatalogFunctionName"), _SCHEDULED)
    if not found["missed"]:
        raise StepFailed("nothing was missed")
    # A second run reads what the first one noted.
    world.invoke_function(("catalog", "ReconcileCatalogFunctionName"), _SCHEDULED)


def _lose_compacted_rows(world: RoleWorld) -> None:
    """Of the image set, so that the functions have something to do."""
    catalog, athena = world.deployment.stack("catalog"), world.client("athena")
    for table in ("series", "instances"):
        query = athena.start_query_execution(
            QueryString=f"DELETE FROM compacted_{table} WHERE image_set_id = '{world.image_set[1]}'",  # noqa: S608 - an identifier of the archive
            QueryExecutionContext={"Database": catalog["DatabaseName"]},
            WorkGroup=catalog["WorkgroupName"],
        )["QueryExecutionId"]
        while True:
            status = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
            if status["State"] not in ("QUEUED", "RUNNING"):
                break
            time.sleep(0.1)
        if status["State"] != "SUCCEEDED":
            raise StepFailed(str(status))


def run_pipeline(world: RoleWorld) -> None:
    """The pipeline trains, evaluates, checks and registers."""
    world.ended(world.execute({"MinimumScore": "0.0"}))


def stop_training(world: RoleWorld) -> None:
    """A stopped pipeline stops the training job that it has started."""
    _stop(world, "Train", parameters={"MaxSteps": "999"})


def stop_evaluation(world: RoleWorld) -> None:
    """A stopped pipeline stops the evaluation that it has started."""
    _stop(world, "Evaluate", parameters={"MaxSteps": "998"})


def _stop(world: RoleWorld, step: str, *, parameters: dict[str, str]) -> None:
    """Stop an execution while the small container of a step sleeps."""
    sagemaker = world.client("sagemaker")
    kind, describe, halt = {
        "Train": ("TrainingJob", sagemaker.describe_training_job, sagemaker.stop_training_job),
        "Evaluate": ("ProcessingJob", sagemaker.describe_processing_job, sagemaker.stop_processing_job),
    }[step]
    execution = world.execute(parameters)

    def sleeping() -> str | None:
        found = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)
        for one in found["PipelineExecutionSteps"]:
            job = one.get("Metadata", {}).get(kind, {}).get("Arn", "")
            if one["StepName"] == step and job and one["StepStatus"] == "Executing":
                name: str = job.rpartition("/")[2]
                described = describe(**{f"{kind}Name": name})
                if f"{kind[:-3]}StartTime" in described:
                    return name
        return None

    name = world.wait(sleeping)
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution, ClientRequestToken=uuid.uuid4().hex)
    world.over(execution)

    def status() -> str:
        return str(describe(**{f"{kind}Name": name})[f"{kind}Status"])

    try:
        # A stopped job takes a moment to end; one that nobody stopped goes on.
        world.wait(lambda: status() != "Stopping", seconds=30)
        if status() != "Stopped":
            raise StepFailed(f"the job is {status()}")
    finally:
        if status() == "InProgress":
            halt(**{f"{kind}Name": name})


def start_container(world: RoleWorld) -> None:
    """An endpoint pulls its image and model, and answers."""
    sagemaker = world.client("sagemaker")
    name = f"roles-{uuid.uuid4().hex[:12]}"
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=world.roles["inference/LungSegmentationContainer"],
        PrimaryContainer={"Image": world.inference_image, "ModelDataUrl": world.model_uri},
    )
    variant = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.m5.xlarge"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def settled() -> Any:
        found = sagemaker.describe_endpoint(EndpointName=name)
        return found if found["EndpointStatus"] != "Creating" else None

    found = world.wait(settled)
    sagemaker.delete_endpoint(EndpointName=name)
    if found["EndpointStatus"] != "InService":
        raise StepFailed(str(found.get("FailureReason")))


def segment(world: RoleWorld) -> None:
    """The endpoint segments a new version of the image set, stores the SEG, answers and announces it."""
    import_files(world)
    world.endpoint  # noqa: B018 - deployed before the first request
    datastore, image_set = world.image_set
    announced = world.announcements()
    version = world.client("medical-imaging").get_image_set(datastoreId=datastore, imageSetId=image_set)
    reference = ImageSetRef(datastore_id=datastore, image_set_id=image_set, version_id=version["versionId"])
    answer = predict(world.deployment, reference, every_seconds=0.1, timeout_seconds=8)
    if answer.segmentation.s3_uri is None:
        raise StepFailed("the answer names no copy of the segmentation in S3")
    try:
        world.wait(lambda: world.announcements() > announced, seconds=5)
    except StepFailed as error:
        raise StepFailed("nobody was told of the answer") from error


def dispatch_arrival(world: RoleWorld) -> None:
    """Images arrive, and the function sends them to the endpoint of their rule."""
    _dispatched(world, world.arrive_unseen())


def dispatch_again(world: RoleWorld) -> None:
    """The same event comes a second time, and nothing is sent."""
    image_set = world.dispatched
    message = world.message("Image Set Created", image_set)["Records"][0]["body"]
    before = world.function_log(*DISPATCH).count(image_set)
    world.without_quiet_period()
    world.client("sqs").send_message(
        QueueUrl=world.deployment.stack("inference")["DispatchQueueUrl"], MessageBody=message
    )
    world.wait(lambda: world.function_log(*DISPATCH).count(image_set) > before, seconds=30)
    line = [one for one in world.function_log(*DISPATCH).splitlines() if image_set in one][-1]
    if "dispatched before" not in line:
        raise StepFailed(line)


DISPATCH = ("inference", "DispatchFunctionName")


def _dispatched(world: RoleWorld, image_set: str) -> None:
    def lines() -> list[str]:
        log = world.function_log(*DISPATCH).splitlines()
        return [one for one in log if image_set in one and "no endpoint is deployed" not in one]

    line = world.wait(lines, seconds=40)[0]
    if "dispatched: image set" not in line:
        raise StepFailed(line)


def reconcile_arrival(world: RoleWorld) -> None:
    """An image set of which nothing is recorded is found and sent, without an event."""
    image_set, place = world.dispatched, "requests/dispatch"
    bucket = world.deployment.stack("data")["ResultBucketName"]
    s3 = world.client("s3")

    def keys(prefix: str) -> list[str]:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{world.image_set[0]}/{image_set}/")
        return [one["Key"] for one in listed.get("Contents", [])]

    for key in [*keys(place), *keys(f"{place}/decided")]:
        s3.delete_object(Bucket=bucket, Key=key)
    schedule = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}

    def found() -> bool:
        world.invoke_function(("inference", "ReconcileFunctionName"), schedule)
        return bool(keys(place)) and bool(keys(f"{place}/decided"))

    # Not before the image set has been left alone for the quiet period.
    world.wait(found, seconds=20)


def announce_what_came(world: RoleWorld) -> None:
    """The announce function reads an answer and a failure, puts an event for each, and notes the failure."""
    bucket, run = world.deployment.stack("data")["ResultBucketName"], f"roles-{uuid.uuid4().hex[:8]}"
    request = {"datastoreId": world.image_set[0], "imageSetId": world.image_set[1], "versionId": "1"}
    model = {"name": "roles", "version": "1", "sha256": "ab"}
    result = {"imageSetId": world.image_set[1], "versionId": "1", "segmentation": None, "model": model}
    places = {
        f"requests/{run}.json": request,
        f"responses/{run}.out": {"results": [result]},
        f"failures/{run}-error.out": {"error": {"type": "NoMatchingSeriesError"}},
    }
    for key, document in places.items():
        world.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())
    asked, answered, failed = (f"s3://{bucket}/{key}" for key in places)
    notifications = [
        {
            "invocationStatus": status,
            "inferenceId": run,
            "requestParameters": {"endpointName": "roles", "inputLocation": asked},
            "responseParameters": {"outputLocation": output},
        }
        for status, output in {"Failed": failed, "Completed": answered}.items()
    ]
    records = [{"messageId": uuid.uuid4().hex, "body": json.dumps(one)} for one in notifications]
    world.invoke_function(("inference", "AnnounceFunctionName"), {"Records": records})


def close_default_group(world: RoleWorld) -> None:
    """The default security group of the network gets a rule, and loses all rules again."""
    ec2 = world.client("ec2")
    vpc = world.deployment.stack("network")["VpcId"]
    (group,) = ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    for authorize in (ec2.authorize_security_group_ingress, ec2.authorize_security_group_egress):
        authorize(GroupId=group["GroupId"], IpPermissions=[rule])
    try:
        answer = world.answer_of_custom_resource("network", "DefaultGroupFunction", GroupId=group["GroupId"])
        (after,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
        if answer["Status"] != "SUCCESS" or after["IpPermissions"] or after["IpPermissionsEgress"]:
            raise StepFailed(str(answer))
    finally:
        (after,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
        for rules, revoke in (
            ("IpPermissions", ec2.revoke_security_group_ingress),
            ("IpPermissionsEgress", ec2.revoke_security_group_egress),
        ):
            if after[rules]:
                revoke(GroupId=group["GroupId"], IpPermissions=after[rules])
