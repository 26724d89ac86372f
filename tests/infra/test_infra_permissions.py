"""Roles: who may be one, and exactly what each may do."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from infra_assembly import Assembly, Resource

from infra.environment import load_delivery, load_environment, pascal_case

NO_RESOURCES = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets", "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "sagemaker:ListApps", "sagemaker:ListDomains", "sagemaker:ListModelPackages", "sagemaker:ListSpaces",
    "sagemaker:ListUserProfiles",
}  # fmt: skip
"""Actions for which IAM knows no resources."""

IN_NETWORK = {
    "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
}  # fmt: skip
"""What Lambda does with a function's role to connect it to the network."""

CONNECTED = {
    "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission", "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
}  # fmt: skip
"""What SageMaker does with a role to connect its containers to the network."""

JOB = {
    *CONNECTED,
    "cloudwatch:PutMetricData",
    "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken",
    "ecr:GetDownloadUrlForLayer",
    "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
    "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
    "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
    "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
}  # fmt: skip
"""Training and evaluation. What each reads and writes is in test_infra_training."""

SPACE = {
    "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
    "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
    "s3:GetObject",
    "sagemaker:AddTags",
    "sagemaker:CreateApp", "sagemaker:DeleteApp", "sagemaker:DescribeApp", "sagemaker:ListApps",
    "sagemaker:CreatePresignedDomainUrl", "sagemaker:DescribeDomain", "sagemaker:ListDomains",
    "sagemaker:CreateSpace", "sagemaker:DeleteSpace", "sagemaker:DescribeSpace", "sagemaker:ListSpaces",
    "sagemaker:UpdateSpace",
    "sagemaker:DescribeUserProfile", "sagemaker:ListUserProfiles",
}  # fmt: skip
"""A private space of SageMaker Studio. What each persona may do beside it is in test_infra_studio too."""

PERSONAS = {
    "data-scientist": {
        *SPACE,
        "athena:BatchGetNamedQuery", "athena:GetQueryExecution", "athena:GetQueryResults",
        "athena:ListNamedQueries", "athena:StartQueryExecution", "athena:StopQueryExecution",
        "cloudformation:DescribeStacks",
        "glue:GetDatabase", "glue:GetTable",
        "logs:GetLogEvents",
        "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "medical-imaging:SearchImageSets",
        "s3:AbortMultipartUpload", "s3:GetBucketLocation", "s3:ListBucket", "s3:PutObject",
        "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages",
        "sagemaker:DescribePipeline",
        "sagemaker:DescribePipelineExecution", "sagemaker:ListPipelineExecutions",
        "sagemaker:ListPipelineExecutionSteps", "sagemaker:ListPipelineParametersForExecution",
        "sagemaker:StartPipelineExecution", "sagemaker:StopPipelineExecution",
    },
    "model-reviewer": {
        *SPACE,
        "cloudformation:DescribeStacks",
        "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", "sagemaker:UpdateModelPackage",
    },
    "clinical-integrator": {
        *SPACE,
        "cloudformation:DescribeStacks",
        "iam:PassRole",
        "logs:GetLogEvents",
        "medical-imaging:GetDICOMImportJob", "medical-imaging:StartDICOMImportJob",
        "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "medical-imaging:SearchImageSets",
        "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListBucket", "s3:PutObject",
        "sagemaker:InvokeEndpointAsync",
        "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage", "sqs:SendMessage",
    },
}  # fmt: skip
"""People. An environment has the roles of the personas that its file names."""

ASKS_CATALOG = {
    *IN_NETWORK,
    "athena:GetQueryExecution", "athena:GetQueryResults", "athena:StartQueryExecution",
    "glue:GetDatabase", "glue:GetTable",
    "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
    "logs:CreateLogStream", "logs:PutLogEvents",
    "s3:AbortMultipartUpload", "s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
}  # fmt: skip
"""Of the functions that keep the catalog in order."""

ALLOWED = {
    "data/Importer": {
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    },
    "arrival/Receiver": {
        "iam:PassRole",
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "medical-imaging:GetDICOMImportJob", "medical-imaging:StartDICOMImportJob",
        "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    },
    "arrival/ServiceStarter": {
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream", "logs:PutLogEvents",
    },
    "data/AuditWriter": {"logs:CreateLogStream", "logs:PutLogEvents"},
    "network/FlowLogWriter": {"logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"},
    "network/DefaultGroupWorkload": {
        "ec2:DescribeSecurityGroups", "ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress",
        "logs:CreateLogStream", "logs:PutLogEvents",
    },
    "catalog/IndexWorkload": {
        *IN_NETWORK,
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "s3:PutObject",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
    },
    "catalog/UpkeepCompactionWorkload": {
        *ASKS_CATALOG,
        "glue:UpdateTable",
        "s3:DeleteObject",
    },
    "catalog/UpkeepComparisonWorkload": {
        *ASKS_CATALOG,
        "medical-imaging:SearchImageSets",
        "s3:DeleteObject",
        "sqs:SendMessage",
    },
    "catalog/ConsistencyWorkload": {
        "glue:GetDatabase", "glue:GetTable", "glue:GetTables", "glue:UpdateTable",
        "kms:Decrypt",
        "logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
        "s3:GetObject", "s3:ListBucket",
    },
    "training/Trainer": JOB,
    "training/Evaluator": {*JOB, "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages"},
    "training/LungSegmentationRunner": {
        "iam:PassRole",
        "kms:Decrypt",
        "s3:GetObject",
        "sagemaker:AddTags",
        "sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage",
        "sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob",
        "sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob",
    },
    "inference/LungSegmentationContainer": {
        *CONNECTED,
        "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricData",
        "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
        "medical-imaging:GetImageFrame", "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "medical-imaging:SearchImageSets", "medical-imaging:StoreDICOM",
        "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
        "sns:Publish",
    },
    "inference/EventsWorkload": {
        *IN_NETWORK,
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "s3:GetObject", "s3:PutObject",
        "sagemaker:InvokeEndpointAsync",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
    },
    "inference/ReconcileWorkload": {
        *IN_NETWORK,
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "medical-imaging:GetImageSet", "medical-imaging:GetImageSetMetadata",
        "medical-imaging:SearchImageSets",
        "s3:GetObject", "s3:ListBucket", "s3:PutObject",
        "sagemaker:InvokeEndpointAsync",
    },
    "inference/AnnounceWorkload": {
        *IN_NETWORK,
        "events:PutEvents",
        "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "s3:DeleteObject", "s3:GetObject", "s3:PutObject",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
    },
}  # fmt: skip
"""Every role, and every action that it has. A change here is a change of what a workload may do."""


VERIFICATION = {
    "athena:GetQueryExecution", "athena:StartQueryExecution",
    "cloudformation:DescribeStacks",
    "kms:GenerateDataKey",
    "medical-imaging:GetDatastore",
    "s3:GetBucketLocation", "s3:PutObject",
    "sagemaker:DescribeEndpoint", "sagemaker:DescribePipeline",
}  # fmt: skip
"""The check of an environment of the delivery."""

CANDIDATES = {
    *IN_NETWORK,
    "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
    "logs:CreateLogStream", "logs:PutLogEvents",
    "s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject",
    "sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages",
    "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
}  # fmt: skip
"""The promote function, in environments that have one before them."""


POLICIES_OF_A_ROLE = 10
"""IAM attaches no more (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)."""


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(policy: Resource) -> list[Resource]:
    found: list[Resource] = policy["Properties"]["PolicyDocument"]["Statement"]
    return found


def allowed(environment: str) -> dict[str, set[str]]:
    """The roles of an environment, those of its people included."""
    present = {user.persona for user in load_environment(environment).studio.users}
    people = {f"studio/{pascal_case(persona)}": PERSONAS[persona] for persona in present}
    found = {**ALLOWED, "studio/Newcomer": SPACE, **people, **promoting(environment)}
    for task in load_environment(environment).training.tasks:
        found[f"training/{task.logical_name}Runner"] = ALLOWED["training/LungSegmentationRunner"]
    if load_environment(environment).arrival.deidentify:
        for role in {"arrival/Receiver", "studio/ClinicalIntegrator"} & set(found):
            found[role] = found[role] | {"secretsmanager:GetSecretValue"}
    if environment == "local":  # which serves its model in real time and in batches, too
        container = ALLOWED["inference/LungSegmentationContainer"]
        found["inference/LungSegmentationNowContainer"] = container - {"sns:Publish"}
        found["inference/LungSegmentationBatchContainer"] = container - {
            "sns:Publish",
            "cloudwatch:DescribeAlarms",
        }
        found["studio/ClinicalIntegrator"] = found["studio/ClinicalIntegrator"] | {
            "sagemaker:CreateTransformJob",
            "sagemaker:DescribeTransformJob",
            "sagemaker:InvokeEndpoint",
        }
    return found


def promoting(environment: str) -> dict[str, set[str]]:
    """The roles of an environment's part in the delivery."""
    delivery = load_delivery()
    if environment not in delivery.environments:
        return {}
    roles = {"promotion/VerificationWorkload": VERIFICATION}
    if delivery.before(environment):
        roles["promotion/CandidatesWorkload"] = CANDIDATES
    if delivery.after(environment):
        roles["promotion/AnnouncementSender"] = {"events:PutEvents"}
    return roles


def test_every_role_has_exactly_its_actions(assembly: Assembly) -> None:
    found: dict[str, set[str]] = {}
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        role = name.rsplit("Policy", 1)[0]
        actions = {action for statement in statements(policy) for action in listed(statement["Action"])}
        found.setdefault(role, set()).update(actions)
    assert found == allowed(assembly.environment)


def test_a_role_has_its_policies_and_nothing_else(assembly: Assembly) -> None:
    assert not list(assembly.resources("AWS::IAM::Policy"))
    roles = dict(assembly.resources("AWS::IAM::Role"))
    attached: Counter[str] = Counter()
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        # A policy is one role's: what is changed for somebody changes nobody else.
        (role,) = policy["Properties"]["Roles"]
        attached[f"{name.split('/')[0]}/{role['Ref']}"] += 1
    assert set(attached) == set(roles)
    for name, number in attached.items():
        # People have one for each topic.
        assert number <= (POLICIES_OF_A_ROLE if name.startswith("studio/") else 1), name
    for name, role in roles.items():
        assert not {"Policies", "ManagedPolicyArns"} & set(role["Properties"]), name


def test_policies_have_room_below_the_limit_of_iam(assembly: Assembly) -> None:
    def deployed(value: Any) -> Any:
        """The value with the ARNs that CloudFormation puts into it, as long as they can be."""
        if isinstance(value, dict):
            if "Fn::ImportValue" in value:
                bucket = "arn:aws:s3:::monai-staging-data-bucketsaccesslogs-0123456789ab"
                return bucket if "Buckets" in value["Fn::ImportValue"] else "x" * 110
            if "Fn::GetAtt" in value or "Ref" in value:
                return "x" * 110
            if "Fn::Join" in value:
                return value["Fn::Join"][0].join(deployed(part) for part in value["Fn::Join"][1])
            return {key: deployed(one) for key, one in value.items()}
        return [deployed(one) for one in value] if isinstance(value, list) else value

    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        document = json.dumps(deployed(policy["Properties"]["PolicyDocument"]), separators=(",", ":"))
        # Blanks are not counted. Of 6,144 characters some stay free for the next task or endpoint.
        assert len(document.replace(" ", "")) < 5_500, name


def test_no_action_is_a_wildcard_and_no_resource_is_everything(assembly: Assembly) -> None:
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        for statement in statements(policy):
            actions = set(listed(statement["Action"]))
            if statement["Effect"] == "Deny":
                # A function's own code never gets what Lambda does with its role (test_infra_network.py);
                # people never write what the event path records (test_infra_studio.py), nor containers what
                # failed (test_infra_event_path.py).
                records = name.startswith("studio/") or "ContainerPolicy" in name
                assert actions == ({"s3:PutObject"} if records else IN_NETWORK), name
                continue
            assert not [action for action in actions if "*" in action], name
            if "*" in listed(statement["Resource"]):
                assert actions <= NO_RESOURCES, name


def test_frames_and_metadata_are_allowed_on_the_datastore_and_its_image_sets(assembly: Assembly) -> None:
    readers = set()
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        for statement in statements(policy):
            if "medical-imaging:GetImageSetMetadata" in listed(statement["Action"]):
                readers.add(name.rsplit("Policy", 1)[0])
                datastore, image_sets = (json.dumps(resource) for resource in statement["Resource"])
                assert "ArchiveDatastore" in datastore, name
                assert "ArchiveDatastore" in image_sets, name
                assert image_sets.endswith('"/imageset/*"]]}'), name
    assert readers == {
        role
        for role, actions in allowed(assembly.environment).items()
        if "medical-imaging:GetImageSetMetadata" in actions
    }


def test_a_role_is_passed_to_sagemaker_or_healthimaging_only(assembly: Assembly) -> None:
    passes = {
        name.rsplit("Policy", 1)[0]: statement
        for name, policy in assembly.resources("AWS::IAM::ManagedPolicy")
        for statement in statements(policy)
        # A person passes a role too, to HealthImaging: see test_infra_studio.
        if "iam:PassRole" in listed(statement["Action"]) and not name.startswith("studio/")
    }
    imports = passes.pop("arrival/Receiver")
    assert imports["Condition"] == {"StringEquals": {"iam:PassedToService": "medical-imaging.amazonaws.com"}}
    assert "ImporterRole" in imports["Resource"]["Fn::ImportValue"]
    of_jobs = {
        "Action": "iam:PassRole",
        "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        "Effect": "Allow",
        "Resource": [
            {"Fn::GetAtt": ["EvaluatorRole4FBCA8FE", "Arn"]},
            {"Fn::GetAtt": ["TrainerRole7789B687", "Arn"]},
        ],
    }
    tasks = load_environment(assembly.environment).training.tasks
    assert passes == {f"training/{task.logical_name}Runner": of_jobs for task in tasks}


def test_services_become_a_role_for_this_account_only(dev: Assembly) -> None:
    trusted = {}
    for name, role in dev.resources("AWS::IAM::Role"):
        if "Verification" in name:
            continue  # Roles of the delivery become this one, no service does: see test_infra_promotion.
        (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        service = statement["Principal"]["Service"]
        trusted[name.rsplit("Role", 1)[0]] = service
        # Lambda and Glue do not say for whom they act when they assume a role.
        if service not in ("lambda.amazonaws.com", "glue.amazonaws.com"):
            assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "111122223333"}, name
        if service == "medical-imaging.amazonaws.com":
            assert statement["Condition"]["ArnEquals"] == {
                "aws:SourceArn": {"Fn::GetAtt": ["ArchiveDatastoreAD6CDB3C", "DatastoreArn"]}
            }
    assert trusted == {
        "arrival/Receiver": "ecs-tasks.amazonaws.com",
        "arrival/ServiceStarter": "ecs-tasks.amazonaws.com",
        "data/AuditWriter": "cloudtrail.amazonaws.com",
        "data/Importer": "medical-imaging.amazonaws.com",
        "network/DefaultGroupWorkload": "lambda.amazonaws.com",
        "network/FlowLogWriter": "vpc-flow-logs.amazonaws.com",
        "catalog/IndexWorkload": "lambda.amazonaws.com",
        "catalog/UpkeepCompactionWorkload": "lambda.amazonaws.com",
        "catalog/UpkeepComparisonWorkload": "lambda.amazonaws.com",
        "catalog/ConsistencyWorkload": "glue.amazonaws.com",
        "training/Trainer": "sagemaker.amazonaws.com",
        "training/Evaluator": "sagemaker.amazonaws.com",
        "training/LungSegmentationRunner": "sagemaker.amazonaws.com",
        "training/VolumeClassificationRunner": "sagemaker.amazonaws.com",
        "inference/LungSegmentationContainer": "sagemaker.amazonaws.com",
        "inference/AnnounceWorkload": "lambda.amazonaws.com",
        "inference/EventsWorkload": "lambda.amazonaws.com",
        "inference/ReconcileWorkload": "lambda.amazonaws.com",
        "studio/ClinicalIntegrator": "sagemaker.amazonaws.com",
        "studio/DataScientist": "sagemaker.amazonaws.com",
        "studio/ModelReviewer": "sagemaker.amazonaws.com",
        "studio/Newcomer": "sagemaker.amazonaws.com",
        "promotion/AnnouncementSender": "events.amazonaws.com",
    }


def test_each_kind_of_object_has_one_writer(assembly: Assembly) -> None:
    """Who trains cannot write the evaluation, nobody but the promote function what was promoted, and nobody
    at all where a multi-model endpoint would serve it from.
    """
    writers: dict[str, set[str]] = {}
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        for statement in statements(policy):
            if statement["Effect"] == "Allow" and "s3:PutObject" in listed(statement["Action"]):
                for resource in listed(statement["Resource"]):
                    text = json.dumps(resource)
                    bucket = re.search(r"Buckets(Inbox|Imports|Catalog|Models|Results)", text)
                    prefix = re.search(r'"/([^"]*)\*"', text)
                    assert bucket, name
                    assert prefix, name
                    writers.setdefault(f"{bucket[1]}/{prefix[1]}", set()).add(name.rsplit("Policy", 1)[0])
    environment = load_environment(assembly.environment)
    people = {user.persona for user in environment.studio.users}
    endpoints = environment.inference.endpoints
    containers = {f"inference/{one.logical_name}Container" for one in endpoints}
    asynchronous = {
        f"inference/{one.logical_name}Container" for one in endpoints if one.mode == "asynchronous"
    }
    wanted = {
        # Import jobs, and of what devices sent also the receiver.
        "Imports/ingest/": {"data/Importer"},
        "Imports/received/": {"arrival/Receiver", "data/Importer"},
        **{f"Inbox/{place}/": {"arrival/Receiver"} for place in ("received", "quarantine", "failed")},
        "Catalog/changes/": {"catalog/IndexWorkload"},
        "Catalog/compacted/": {"catalog/UpkeepCompactionWorkload"},
        "Catalog/compaction/": {"catalog/UpkeepCompactionWorkload"},
        "Catalog/comparison/": {"catalog/UpkeepComparisonWorkload"},
        "Models/checkpoints/": {"training/Trainer"},
        "Models/training/": {"training/Trainer"},
        "Models/evaluation/": {"training/Evaluator"},
        "Results/requests/dispatch/": {"inference/EventsWorkload", "inference/ReconcileWorkload"},
        "Results/failures/noted/": {"inference/AnnounceWorkload"},
        **{f"Results/{prefix}/": asynchronous for prefix in ("responses", "failures")},
        "Results/segmentations/": containers,
        **{
            f"Results/responses/batch/{one.name}/": {f"inference/{one.logical_name}Container"}
            for one in endpoints
            if one.mode == "batch"
        },
        "Catalog/query-results/": {"catalog/UpkeepCompactionWorkload", "catalog/UpkeepComparisonWorkload"},
    }
    if assembly.environment in ("staging", "prod"):
        wanted["Models/promoted/"] = {"promotion/CandidatesWorkload"}
    if assembly.environment != "local":
        wanted["Catalog/query-results/"] |= {"promotion/VerificationWorkload"}
    if "data-scientist" in people:
        wanted["Catalog/query-results/"] |= {"studio/DataScientist"}
        wanted |= {f"Models/{place}/": {"studio/DataScientist"} for place in ("manifests", "bundles")}
    if "clinical-integrator" in people:
        # Less those of the event path: test_infra_studio.py.
        of_integrator = ("Inbox/ingest/", "Imports/ledger/", "Results/requests/")
        wanted |= {place: {"studio/ClinicalIntegrator"} for place in of_integrator}
    # A report may be due of what came before de-identification was switched off.
    wanted["Imports/reports/deidentification/"] = {"arrival/Receiver"}
    if environment.arrival.deidentify:
        wanted |= {
            f"Imports/{place}/": {"arrival/Receiver", "studio/ClinicalIntegrator"}
            for place in ("reports/deidentification", "reidentification")
        }
    assert writers == {place: roles for place, roles in wanted.items() if roles}
