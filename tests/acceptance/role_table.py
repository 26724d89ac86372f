"""For every role and every action that it is granted: which step fails without it, or why only AWS itself
would miss it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import role_persons
import role_receiver
import role_steps
from role_evaluation import evaluate_model
from role_steps import Step
from role_training import train_model

KMS = "The local cloud's services accept a key and do not ask it; on AWS what they keep would be unreadable."
LOGS = "The local cloud writes logs itself; on AWS the service does it as the role."
PARTS = "Only a failed upload in parts is taken back, to leave no parts behind that cost."
LAYERS = "The local registry hands an image over whole; ECR asks for each of its layers."
CONTAINER_METRICS = "The local cloud does not measure containers; on AWS SageMaker reports it as the role."
QUEUE = "The local cloud reads a function's queue itself; on AWS Lambda does it as the role."
NETWORK = "The local cloud's functions and containers have no network interfaces that had to be made."
TAGS = "The local pipeline does not tag what it makes; SageMaker tags it with the pipeline's ARN."
ECS = "The local cloud only records the service; ECS starts its task as the role."
CRAWLER = "The local cloud's crawler ends at once and looks at nothing; Glue does it as the role."
AUDIT = "The local cloud only records the trail; CloudTrail writes its log group as the role."
FLOWS = "The local cloud has no packets; on AWS the flow log is written as the role."
STUDIO = "Studio is recorded only in the local cloud; there are no spaces and apps to start or to list."
ATHENA = "The local Athena asks for tables alone; on AWS it looks at their database, too."
DAMAGE = (
    "The local Athena does not name the object that it cannot read; Athena does, and the function removes it."
)
LATER = "Objects are removed ten minutes after they were compacted: test_compact_function_cloud.py shows it."
DIRECT = "The local endpoint gets the key of a request and lists nothing; SageMaker may list first."
DISPATCHES = "Shown with the dispatch function's role, whose code and statements these are."
SAME_TASK = "Shown with the first task's role, which the same construct makes."
SAME = "Shown with the asynchronous endpoint's role, which the same construct makes."
ROLLBACK = "The local cloud knows no deployment guard; SageMaker looks at the alarms as the role."


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role's actions. What stands in none of the mappings must not be granted."""

    needed: Mapping[str, tuple[Step, str]] = field(default_factory=dict)
    """Action -> the step that fails without it, and what can be read then."""
    only_on_aws: Mapping[str, str] = field(default_factory=dict)
    """Action -> why its removal changes nothing here."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Action -> where its removal is shown, in place of a second time here."""


def _needed(step: Step, *actions: str) -> dict[str, tuple[Step, str]]:
    """Actions whose denial names them."""
    return {action: (step, action.partition(":")[2]) for action in actions}


def _because(reason: str, *actions: str) -> dict[str, str]:
    return dict.fromkeys(actions, reason)


_USE_KEY = _because(KMS, "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")
_WRITE_LOGS = _because(LOGS, "logs:CreateLogStream", "logs:PutLogEvents")
_READ_QUEUE = _because(QUEUE, "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
_FUNCTION_IN_NETWORK = _because(
    NETWORK,
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
_ATHENA_READS = _because(ATHENA, "glue:GetDatabase") | _because(PARTS, "s3:AbortMultipartUpload")


def _by_athena(step: Step, *actions: str) -> dict[str, tuple[Step, str]]:
    """Actions of the caller that Athena uses. Functions tell only its word for what was denied."""
    return {
        action: (step, "HIVE_METASTORE_ERROR" if action.startswith("glue:") else "PERMISSION_DENIED")
        for action in actions
    }


_CONTAINER = (
    _USE_KEY
    | _WRITE_LOGS
    | _because(LOGS, "logs:DescribeLogStreams")
    | _because(KMS, "kms:CreateGrant")
    | _because(LAYERS, "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer")
    | _because(CONTAINER_METRICS, "cloudwatch:PutMetricData")
    | _because(PARTS, "s3:AbortMultipartUpload")
    | _because(
        NETWORK,
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
    )
)
_READ_IMAGES = (
    "medical-imaging:GetImageFrame",
    "medical-imaging:GetImageSet",
    "medical-imaging:GetImageSetMetadata",
)
_STARTS = ("ecr:BatchGetImage", "ecr:GetAuthorizationToken")
_SEGMENTS = (
    *_READ_IMAGES,
    "medical-imaging:SearchImageSets",
    "medical-imaging:StoreDICOM",
    "s3:GetObject",
    "s3:PutObject",
)
_RUNS = (
    "iam:PassRole",
    "kms:Decrypt",
    "s3:GetObject",
    "sagemaker:AddTags",
    "sagemaker:CreateModelPackage",
    "sagemaker:CreateProcessingJob",
    "sagemaker:CreateTrainingJob",
    "sagemaker:DescribeModelPackage",
    "sagemaker:DescribeProcessingJob",
    "sagemaker:DescribeTrainingJob",
    "sagemaker:StopProcessingJob",
    "sagemaker:StopTrainingJob",
)
_JOB = (
    *_READ_IMAGES,
    "ecr:BatchGetImage",
    "ecr:GetAuthorizationToken",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
)
_SPACE = (
    _because(KMS, "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")
    | _WRITE_LOGS
    | _because(
        STUDIO,
        "sagemaker:AddTags",
        "sagemaker:CreateApp",
        "sagemaker:CreatePresignedDomainUrl",
        "sagemaker:CreateSpace",
        "sagemaker:DeleteApp",
        "sagemaker:DeleteSpace",
        "sagemaker:DescribeApp",
        "sagemaker:DescribeDomain",
        "sagemaker:DescribeSpace",
        "sagemaker:DescribeUserProfile",
        "sagemaker:ListApps",
        "sagemaker:ListDomains",
        "sagemaker:ListSpaces",
        "sagemaker:ListUserProfiles",
        "sagemaker:UpdateSpace",
    )
)

ROLES: dict[str, Role] = {
    role_receiver.RECEIVER: Role(
        needed=_needed(
            role_receiver.receive_a_study,
            "iam:PassRole",
            "medical-imaging:GetDICOMImportJob",
            "medical-imaging:StartDICOMImportJob",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:ListBucket",
            "s3:PutObject",
        ),
        only_on_aws=_USE_KEY | _because(PARTS, "s3:AbortMultipartUpload"),
    ),
    "arrival/ServiceStarter": Role(
        only_on_aws=_because(
            ECS,
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetAuthorizationToken",
            "ecr:GetDownloadUrlForLayer",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
        )
    ),
    "data/AuditWriter": Role(only_on_aws=_because(AUDIT, "logs:CreateLogStream", "logs:PutLogEvents")),
    "data/Importer": Role(
        needed=_needed(role_steps.import_files, "s3:GetObject", "s3:ListBucket", "s3:PutObject"),
        only_on_aws=_USE_KEY | _because(PARTS, "s3:AbortMultipartUpload"),
    ),
    "network/DefaultGroupWorkload": Role(
        needed=_needed(
            role_steps.close_default_group,
            "ec2:DescribeSecurityGroups",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
        ),
        only_on_aws=_WRITE_LOGS,
    ),
    "network/FlowLogWriter": Role(
        only_on_aws=_because(FLOWS, "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
    ),
    "catalog/ConsistencyWorkload": Role(
        only_on_aws=_because(
            CRAWLER,
            "glue:GetDatabase",
            "glue:GetTable",
            "glue:GetTables",
            "glue:UpdateTable",
            "kms:Decrypt",
            "logs:AssociateKmsKey",
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "s3:GetObject",
            "s3:ListBucket",
        )
    ),
    "catalog/IndexWorkload": Role(
        needed=_needed(
            role_steps.index_image_set,
            "medical-imaging:GetImageSet",
            "medical-imaging:GetImageSetMetadata",
            "s3:PutObject",
        ),
        only_on_aws=_USE_KEY | _WRITE_LOGS | _READ_QUEUE | _FUNCTION_IN_NETWORK,
    ),
    "catalog/UpkeepCompactionWorkload": Role(
        needed=_needed(
            role_steps.compact_catalog,
            "athena:GetQueryExecution",
            "athena:GetQueryResults",
            "athena:StartQueryExecution",
            "s3:GetObject",
            "s3:ListBucket",
        )
        | _by_athena(
            role_steps.compact_catalog,
            "glue:GetTable",
            "glue:UpdateTable",
            "s3:GetBucketLocation",
            "s3:PutObject",
        ),
        only_on_aws=_ATHENA_READS
        # Of the function's own, and of Athena's for VACUUM.
        | _because(LATER, "s3:DeleteObject")
        | _USE_KEY
        | _WRITE_LOGS
        | _FUNCTION_IN_NETWORK,
    ),
    "catalog/UpkeepComparisonWorkload": Role(
        needed=_needed(
            role_steps.reconcile_catalog,
            "athena:GetQueryExecution",
            "athena:GetQueryResults",
            "athena:StartQueryExecution",
            "medical-imaging:SearchImageSets",
            "s3:ListBucket",
            "s3:PutObject",
            "sqs:SendMessage",
        )
        | _by_athena(role_steps.reconcile_catalog, "glue:GetTable", "s3:GetBucketLocation", "s3:GetObject"),
        only_on_aws=_ATHENA_READS
        | _USE_KEY
        | _WRITE_LOGS
        | _FUNCTION_IN_NETWORK
        | _because(DAMAGE, "s3:DeleteObject"),
    ),
    "training/Trainer": Role(needed=_needed(train_model, *_JOB), only_on_aws=_CONTAINER),
    "training/Evaluator": Role(
        needed=_needed(
            evaluate_model, *_JOB, "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"
        ),
        only_on_aws=_CONTAINER,
    ),
    "training/VolumeClassificationRunner": Role(elsewhere=_because(SAME_TASK, *_RUNS)),
    "training/LungSegmentationRunner": Role(
        needed=_needed(
            role_steps.run_pipeline,
            "iam:PassRole",
            "s3:GetObject",
            "sagemaker:CreateModelPackage",
            "sagemaker:CreateProcessingJob",
            "sagemaker:CreateTrainingJob",
            "sagemaker:DescribeModelPackage",
            "sagemaker:DescribeProcessingJob",
            "sagemaker:DescribeTrainingJob",
        )
        | {
            "sagemaker:StopTrainingJob": (role_steps.stop_training, "the job is InProgress"),
            "sagemaker:StopProcessingJob": (role_steps.stop_evaluation, "the job is InProgress"),
        },
        only_on_aws=_because(KMS, "kms:Decrypt") | _because(TAGS, "sagemaker:AddTags"),
    ),
    "inference/LungSegmentationContainer": Role(
        needed=_needed(role_steps.start_container, *_STARTS)
        | _needed(role_steps.segment, *_SEGMENTS)
        | {"sns:Publish": (role_steps.segment, "nobody was told of the answer")},
        only_on_aws=_CONTAINER
        | _because(DIRECT, "s3:ListBucket")
        | _because(ROLLBACK, "cloudwatch:DescribeAlarms"),
    ),
    "inference/LungSegmentationNowContainer": Role(
        needed=_needed(role_persons.ask_at_once, "medical-imaging:StoreDICOM"),
        elsewhere=_because(
            SAME, *(one for one in _SEGMENTS if one != "medical-imaging:StoreDICOM"), *_STARTS
        ),
        only_on_aws=_CONTAINER
        | _because(DIRECT, "s3:ListBucket")
        | _because(ROLLBACK, "cloudwatch:DescribeAlarms"),
    ),
    "inference/LungSegmentationBatchContainer": Role(
        needed=_needed(role_persons.ask_for_a_batch, "s3:ListBucket"),
        elsewhere=_because(SAME, *_SEGMENTS, *_STARTS),
        only_on_aws=_CONTAINER,
    ),
    "inference/EventsWorkload": Role(
        needed=_needed(
            role_steps.dispatch_arrival,
            "medical-imaging:GetImageSet",
            "medical-imaging:GetImageSetMetadata",
            "s3:PutObject",
            "sagemaker:InvokeEndpointAsync",
        )
        | {"s3:GetObject": (role_steps.dispatch_again, "HeadObject")},
        only_on_aws=_USE_KEY | _WRITE_LOGS | _READ_QUEUE | _FUNCTION_IN_NETWORK,
    ),
    "inference/ReconcileWorkload": Role(
        needed=_needed(role_steps.reconcile_arrival, "medical-imaging:SearchImageSets", "s3:ListBucket"),
        elsewhere=_because(
            DISPATCHES,
            "medical-imaging:GetImageSet",
            "medical-imaging:GetImageSetMetadata",
            "s3:GetObject",
            "s3:PutObject",
            "sagemaker:InvokeEndpointAsync",
        ),
        only_on_aws=_USE_KEY | _WRITE_LOGS | _FUNCTION_IN_NETWORK,
    ),
    "inference/AnnounceWorkload": Role(
        needed=_needed(
            role_steps.announce_what_came,
            "events:PutEvents",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:PutObject",
        ),
        only_on_aws=_USE_KEY | _WRITE_LOGS | _READ_QUEUE | _FUNCTION_IN_NETWORK,
    ),
    "studio/Newcomer": Role(only_on_aws=_SPACE | _because(STUDIO, "logs:DescribeLogStreams", "s3:GetObject")),
    role_persons.SCIENTIST: Role(
        needed=_needed(
            role_persons.ask_the_catalog,
            "athena:BatchGetNamedQuery",
            "athena:GetQueryExecution",
            "athena:GetQueryResults",
            "athena:ListNamedQueries",
            "athena:StartQueryExecution",
            "cloudformation:DescribeStacks",
            "glue:GetTable",
            "s3:GetBucketLocation",
            "s3:ListBucket",
        )
        | _needed(role_persons.make_a_dataset, "s3:GetObject", "s3:PutObject")
        | _needed(role_persons.interrupt_a_query, "athena:StopQueryExecution")
        | _needed(role_persons.look_at_images, *_READ_IMAGES)
        | _needed(role_persons.view_images, "medical-imaging:SearchImageSets")
        | _needed(
            role_persons.start_training,
            "sagemaker:DescribePipeline",
            "sagemaker:DescribePipelineExecution",
            "sagemaker:ListPipelineExecutionSteps",
            "sagemaker:ListPipelineExecutions",
            "sagemaker:ListPipelineParametersForExecution",
            "sagemaker:StartPipelineExecution",
            "sagemaker:StopPipelineExecution",
        )
        | _needed(
            role_persons.read_training_results,
            "logs:DescribeLogStreams",
            "logs:GetLogEvents",
            "sagemaker:DescribeModelPackage",
            "sagemaker:ListModelPackages",
        ),
        only_on_aws=_SPACE
        | _because(ATHENA, "glue:GetDatabase")
        | _because(PARTS, "s3:AbortMultipartUpload"),
    ),
    role_persons.REVIEWER: Role(
        needed=_needed(
            role_persons.approve_a_model,
            "cloudformation:DescribeStacks",
            "s3:GetObject",
            "sagemaker:DescribeModelPackage",
            "sagemaker:ListModelPackages",
            "sagemaker:UpdateModelPackage",
        ),
        only_on_aws=_SPACE | _because(STUDIO, "logs:DescribeLogStreams"),
    ),
    role_persons.INTEGRATOR: Role(
        needed=_needed(
            role_persons.bring_in_a_study,
            "cloudformation:DescribeStacks",
            "iam:PassRole",
            "medical-imaging:GetDICOMImportJob",
            "medical-imaging:StartDICOMImportJob",
            "s3:GetObject",
            "s3:PutObject",
        )
        | _needed(role_persons.look_at_a_study, *_READ_IMAGES)
        | _needed(role_persons.view_a_study, "medical-imaging:SearchImageSets")
        | _needed(
            role_persons.ask_for_a_segmentation,
            "logs:DescribeLogStreams",
            "logs:GetLogEvents",
            "sagemaker:InvokeEndpointAsync",
        )
        | _needed(role_persons.ask_at_once, "sagemaker:InvokeEndpoint")
        | _needed(
            role_persons.ask_for_a_batch,
            "s3:ListBucket",
            "sagemaker:CreateTransformJob",
            "sagemaker:DescribeTransformJob",
        )
        | _needed(
            role_persons.repair_what_was_missed,
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:ReceiveMessage",
            "sqs:SendMessage",
        )
        | _needed(role_receiver.see_to_what_was_refused, "s3:DeleteObject"),
        only_on_aws=_SPACE | _because(PARTS, "s3:AbortMultipartUpload"),
    ),
}
