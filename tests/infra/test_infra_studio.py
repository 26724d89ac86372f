"""SageMaker Studio: a domain without a way out, its people, and what each persona may do and may not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from infra_assembly import Assembly, Resource

from infra.environment import Environment, Studio, StudioUser, load_environment, pascal_case


def domain(assembly: Assembly) -> Resource:
    return assembly.only("AWS::SageMaker::Domain")


def statements(assembly: Assembly, role: str) -> Iterator[tuple[set[str], str, Resource]]:
    """(actions, resources as text, conditions) of a role of the stack."""
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        if name.startswith(f"studio/{role}Policy"):
            for one in policy["Properties"]["PolicyDocument"]["Statement"]:
                if one["Effect"] == "Deny":
                    continue  # test_nobody_writes_the_records_of_the_event_path
                actions = one["Action"] if isinstance(one["Action"], list) else [one["Action"]]
                yield set(actions), json.dumps(one["Resource"]), one.get("Condition", {})


def places(assembly: Assembly, role: str, action: str) -> list[str]:
    """The resources on which a role may do something."""
    return [resources for actions, resources, _ in statements(assembly, role) if action in actions]


def roles(assembly: Assembly) -> dict[str, set[str]]:
    """Actions of every role of the environment, whatever its stack."""
    found: dict[str, set[str]] = {}
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        actions = found.setdefault(name.rsplit("Policy", 1)[0], set())
        for one in policy["Properties"]["PolicyDocument"]["Statement"]:
            if one["Effect"] == "Allow":
                actions |= set(one["Action"] if isinstance(one["Action"], list) else [one["Action"]])
    return found


def test_the_domain_has_no_way_to_the_internet(assembly: Assembly) -> None:
    properties = domain(assembly)["Properties"]
    assert properties["AppNetworkAccessType"] == "VpcOnly"
    assert len(properties["SubnetIds"]) >= 2
    assert properties["DomainSettings"]["DockerSettings"] == {"EnableDockerAccess": "DISABLED"}
    assert properties["DefaultUserSettings"]["SharingSettings"] == {"NotebookOutputOption": "Disabled"}


def test_what_people_keep_is_under_the_platforms_key(assembly: Assembly) -> None:
    properties = domain(assembly)["Properties"]
    assert "EncryptionKey" in json.dumps(properties["KmsKeyId"])
    # Volumes of spaces only: no file system to encrypt, to reach by NFS, or to forget.
    assert properties["HomeEfsFileSystemCreation"] == "Disabled"
    assert properties["DefaultUserSettings"]["AutoMountHomeEFS"] == "Disabled"


def test_nobody_can_connect_to_a_notebook_server(assembly: Assembly) -> None:
    ((_, imported),) = (
        tuple(*group.items())
        for group in domain(assembly)["Properties"]["DefaultUserSettings"]["SecurityGroups"]
    )
    exports = assembly.template("network")["Outputs"].values()
    (group,) = [
        one["Value"]["Fn::GetAtt"][0] for one in exports if one.get("Export", {}).get("Name") == imported
    ]
    properties = assembly.template("network")["Resources"][group]["Properties"]
    assert "SecurityGroupIngress" not in properties
    for rule in properties["SecurityGroupEgress"]:
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443), rule
    admitted_by = []
    for name, rule in assembly.resources("AWS::EC2::SecurityGroupIngress"):
        assert group not in json.dumps(rule["Properties"]["GroupId"]), name
        if group in json.dumps(rule["Properties"]):
            admitted_by.append(rule["Properties"]["GroupId"]["Fn::GetAtt"][0])
    # It reaches the endpoints of services.
    assert [name.startswith("EndpointsGroup") for name in admitted_by] == [True]
    # A person's own profile adds no group.
    for name, profile in assembly.resources("AWS::SageMaker::UserProfile"):
        assert set(profile["Properties"]["UserSettings"]) == {"ExecutionRole"}, name


def test_idle_servers_stop_when_the_file_says(assembly: Assembly) -> None:
    studio = load_environment(assembly.environment).studio
    settings = domain(assembly)["Properties"]["DefaultUserSettings"]["JupyterLabAppSettings"]
    assert settings["AppLifecycleManagement"]["IdleSettings"] == {
        "LifecycleManagement": "ENABLED",
        "IdleTimeoutInMinutes": studio.idle_minutes,
        "MinIdleTimeoutInMinutes": studio.idle_minutes,
        "MaxIdleTimeoutInMinutes": studio.idle_minutes,
    }
    assert settings["DefaultResourceSpec"] == {"InstanceType": studio.instance_type}


def test_a_domain_with_peoples_work_is_kept(synthesize: Callable[[str], Assembly]) -> None:
    for environment, deleted, replaced, protected in (
        ("prod", "RetainExceptOnCreate", "Retain", True),
        ("local", "Delete", "Delete", False),
    ):
        assembly = synthesize(environment)
        assert domain(assembly)["DeletionPolicy"] == deleted
        assert domain(assembly)["UpdateReplacePolicy"] == replaced
        assert assembly.stacks["studio"]["properties"]["terminationProtection"] is protected
        # Create-only: constant, so that the domain is replaced by a change of the way to sign in alone.
        assert domain(assembly)["Properties"]["DomainName"] == f"monai-{environment}"


def test_there_is_a_profile_for_each_person_of_the_file(assembly: Assembly) -> None:
    studio = load_environment(assembly.environment).studio
    assert domain(assembly)["Properties"]["AuthMode"] == studio.auth
    profiles = [resource["Properties"] for _, resource in assembly.resources("AWS::SageMaker::UserProfile")]
    found = {
        profile["UserProfileName"]: (
            profile["UserSettings"]["ExecutionRole"]["Fn::GetAtt"][0].split("Role")[0],
            profile.get("SingleSignOnUserIdentifier"),
            profile.get("SingleSignOnUserValue"),
        )
        for profile in profiles
    }
    assert found == {
        user.name: (pascal_case(user.persona), "UserName" if studio.auth == "SSO" else None, user.sso_user)
        for user in studio.users
    }


def test_people_sign_in_in_both_ways(synthesize: Callable[[str], Assembly]) -> None:
    signs_in = {name: load_environment(name).studio.auth for name in ("dev", "prod")}
    assert signs_in == {"dev": "IAM", "prod": "SSO"}
    for name, auth in signs_in.items():
        assert domain(synthesize(name))["Properties"]["AuthMode"] == auth


def test_an_environment_has_the_roles_of_its_people_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = Studio(
        auth="SSO",
        idle_minutes=90,
        instance_type="ml.m5.large",
        users=(
            StudioUser(name="one", persona="model-reviewer", sso_user="one@example.com"),
            StudioUser(name="two", persona="model-reviewer", sso_user="two@example.com"),
        ),
    )
    template = variant(load_environment("dev").model_copy(update={"studio": studio}), monkeypatch, tmp_path)
    found = [name for name, one in template["Resources"].items() if one["Type"] == "AWS::IAM::Role"]
    assert sorted(name.split("Role")[0] for name in found) == ["ModelReviewer", "Newcomer"]
    profiles = [one for one in template["Resources"].values() if one["Type"] == "AWS::SageMaker::UserProfile"]
    assert {profile["Properties"]["SingleSignOnUserValue"] for profile in profiles} == {
        "one@example.com",
        "two@example.com",
    }


def variant(environment: Environment, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """The stack's template in an environment that no file describes; the rule packs have to pass."""
    from infra import application

    monkeypatch.setattr(application, "load_environment", lambda name: environment)
    application.build_app(context={"env": "dev"}, outdir=folder).synth()
    (path,) = (folder / "assembly-dev").glob("devstudio*.template.json")
    template: dict[str, Any] = json.loads(path.read_text())
    return template


def test_who_is_not_in_the_file_gets_a_space_and_no_data(assembly: Assembly) -> None:
    role = domain(assembly)["Properties"]["DefaultUserSettings"]["ExecutionRole"]
    assert role["Fn::GetAtt"][0].startswith("NewcomerRole")
    services = {
        action.split(":")[0] for actions, _, _ in statements(assembly, "Newcomer") for action in actions
    }
    assert services == {"kms", "logs", "s3", "sagemaker"}
    (toolkit,) = places(assembly, "Newcomer", "s3:GetObject")
    assert "cdk-hnb659fds-assets" in toolkit
    assert "*" not in toolkit


def test_cloudtrail_says_which_person_acted(assembly: Assembly) -> None:
    settings = domain(assembly)["Properties"]["DomainSettings"]
    assert settings["ExecutionRoleIdentityConfig"] == "USER_PROFILE_NAME"
    for name, role in assembly.resources("AWS::IAM::Role"):
        if name.startswith("studio/"):
            (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert set(trust["Action"]) == {"sts:AssumeRole", "sts:SetSourceIdentity"}, name


def test_everyone_makes_private_spaces_of_their_own_only(assembly: Assembly) -> None:
    changing = {
        "sagemaker:CreateApp", "sagemaker:CreateSpace", "sagemaker:DeleteApp", "sagemaker:DeleteSpace",
        "sagemaker:UpdateSpace",
    }  # fmt: skip
    people = [role.removeprefix("studio/") for role in roles(assembly) if role.startswith("studio/")]
    assert len(people) >= 2
    for role in people:
        seen = set()
        for actions, resources, conditions in statements(assembly, role):
            if actions & changing:
                seen |= actions
                assert conditions["StringEquals"] == {"sagemaker:SpaceSharingType": "Private"}
                (owner,) = conditions["ArnLike"].values()
                assert owner.endswith(":user-profile/${sagemaker:DomainId}/${sagemaker:UserProfileName}")
                assert "${sagemaker:DomainId}" in resources
            if actions & {"sagemaker:CreateApp", "sagemaker:DeleteApp"}:
                # JupyterLab and nothing else: Canvas or Code Editor have no idle shutdown here.
                assert all("jupyterlab" in one.lower() for one in json.loads(resources))
            if "sagemaker:AddTags" in actions:
                assert conditions == {"Null": {"sagemaker:TaggingAction": "false"}}
            if "sagemaker:CreatePresignedDomainUrl" in actions:
                assert resources.endswith(':user-profile/${sagemaker:DomainId}/${sagemaker:UserProfileName}"')
        assert seen == changing


def test_only_the_reviewer_approves_models(assembly: Assembly) -> None:
    approving = {
        role
        for role, actions in roles(assembly).items()
        if actions & {"sagemaker:UpdateModelPackage", "sagemaker:BatchUpdateModelPackage"}
    }
    assert approving == {"studio/ModelReviewer"}
    # Of the tasks' own models.
    (found,) = places(assembly, "ModelReviewer", "sagemaker:UpdateModelPackage")
    packages = json.loads(found)
    tasks = load_environment(assembly.environment).training.tasks
    assert [one.rpartition(":")[2] for one in (packages if isinstance(packages, list) else [packages])] == [
        f"model-package/monai-{assembly.environment}-{task.name}/*" for task in tasks
    ]
    # And trains none.
    reviewer = roles(assembly)["studio/ModelReviewer"]
    assert not [one for one in reviewer if "Pipeline" in one or "Job" in one or one.startswith("medical-")]


def test_no_persona_can_deploy_change_roles_or_delete_images(assembly: Assembly) -> None:
    harmless = {"cloudformation:DescribeStacks", "iam:PassRole"}
    for role, actions in roles(assembly).items():
        if not role.startswith("studio/"):
            continue
        services = ("iam", "cloudformation", "sts", "lambda", "ec2", "organizations")
        assert not {one for one in actions if one.split(":")[0] in services} - harmless, role
        images = {one.split(":")[1] for one in actions if one.startswith("medical-imaging:")}
        assert all(one.startswith(("Get", "Search", "StartDICOMImportJob")) for one in images), role
        deleting = {one for one in actions if one.startswith("s3:Delete") or "kms:Schedule" in one}
        # What the receiver could not have imported: test_objects_are_read_and_written_where_the_commands_do.
        assert deleting <= ({"s3:DeleteObject"} if role == "studio/ClinicalIntegrator" else set()), role


def test_the_integrator_passes_one_role_to_one_service(assembly: Assembly) -> None:
    passing = [
        (role, resources, conditions)
        for role in (one.removeprefix("studio/") for one in roles(assembly))
        for actions, resources, conditions in statements(assembly, role)
        if "iam:PassRole" in actions
    ]
    ((role, resources, conditions),) = passing
    assert role == "ClinicalIntegrator"
    assert "ImporterRole" in resources
    assert conditions == {"StringEquals": {"iam:PassedToService": "medical-imaging.amazonaws.com"}}


def test_objects_are_read_and_written_where_the_commands_do(dev: Assembly) -> None:
    buckets = ("Catalog", "Imports", "Inbox", "Models", "Results")

    def prefixes(role: str, action: str) -> set[str]:
        found = set()
        for place in places(dev, role, action):
            resources = json.loads(place)
            for one in resources if isinstance(resources, list) else [resources]:
                if isinstance(one, dict):
                    _, (bucket, prefix) = one["Fn::Join"]
                    export = bucket["Fn::ImportValue"].split("GetAttBuckets")[1]
                    (name,) = [known for known in buckets if export.startswith(known)]
                    found.add(name + prefix)
        return found

    assert prefixes("DataScientist", "s3:PutObject") == {
        "Models/manifests/*", "Models/bundles/*", "Catalog/query-results/*",
    }  # fmt: skip
    evidence = {"Models/evaluation/*", "Models/manifests/*", "Models/promoted/*/evaluation.json"}
    assert prefixes("DataScientist", "s3:GetObject") == {"Catalog/*", *evidence}
    assert prefixes("ModelReviewer", "s3:GetObject") == evidence
    # `dev` de-identifies, and who brings files there does it.
    assert prefixes("ClinicalIntegrator", "s3:PutObject") == {
        "Inbox/ingest/*", "Imports/ledger/*", "Imports/reidentification/*",
        "Imports/reports/deidentification/*", "Results/requests/*",
    }  # fmt: skip
    assert prefixes("ClinicalIntegrator", "s3:DeleteObject") == {"Inbox/failed/*", "Inbox/quarantine/*"}
    assert prefixes("ClinicalIntegrator", "s3:GetObject") == {
        "Inbox/failed/*", "Inbox/quarantine/*",
        "Imports/ingest/*", "Imports/ledger/*", "Imports/received/*", "Imports/reidentification/*",
        "Results/failures/*", "Results/responses/*",
    }  # fmt: skip


def test_nobody_writes_the_records_of_the_event_path(assembly: Assembly) -> None:
    """They decide whether a study is still sent, and a queued request is read from there when its turn comes:
    a person who could write one could exchange the patient.
    """
    writers = set()
    for name, policy in assembly.resources("AWS::IAM::ManagedPolicy"):
        role = name.rsplit("Policy", 1)[0]
        found: dict[str, set[str]] = {"Allow": set(), "Deny": set()}
        for one in policy["Properties"]["PolicyDocument"]["Statement"]:
            if "s3:PutObject" in (one["Action"] if isinstance(one["Action"], list) else [one["Action"]]):
                resources = one["Resource"] if isinstance(one["Resource"], list) else [one["Resource"]]
                found[one["Effect"]] |= {json.dumps(resource) for resource in resources}
        reached = [
            arn for arn in found["Allow"] if "BucketsResults" in arn and re.search(r'"/(requests/)?\*"', arn)
        ]
        denied = [arn for arn in found["Deny"] if "BucketsResults" in arn and '"/requests/dispatch/*"' in arn]
        assert len(denied) == len(reached), name
        if any("/requests/dispatch/" in arn for arn in found["Allow"]):
            writers.add(role)
    rules = load_environment(assembly.environment).inference.rules
    dispatching = {"inference/EventsWorkload", "inference/ReconcileWorkload"}
    assert writers == (dispatching if rules else set())


def test_the_integrator_asks_the_endpoints_of_the_environment(assembly: Assembly) -> None:
    name = next(iter(load_environment(assembly.environment).inference.endpoints)).name
    (endpoints,) = places(assembly, "ClinicalIntegrator", "sagemaker:InvokeEndpointAsync")
    assert f":endpoint/monai-{assembly.environment}-{name}" in endpoints
    (logs,) = places(assembly, "ClinicalIntegrator", "logs:GetLogEvents")
    assert f":log-group:/aws/sagemaker/Endpoints/monai-{assembly.environment}-{name}" in logs


def test_the_integrator_asks_endpoints_in_real_time_and_in_batches(
    synthesize: Callable[[str], Assembly],
) -> None:
    local = synthesize("local")
    (at_once,) = places(local, "ClinicalIntegrator", "sagemaker:InvokeEndpoint")
    assert at_once.endswith(':endpoint/monai-local-lung-segmentation-now-m5-xlarge"')
    integrator = statements(local, "ClinicalIntegrator")
    ((jobs, conditions),) = [
        (json.loads(resources), conditions)
        for actions, resources, conditions in integrator
        if "sagemaker:CreateTransformJob" in actions
    ]
    assert jobs.endswith(":transform-job/lung-segmentation-batch-*")
    assert conditions == {"ForAnyValue:StringEquals": {"sagemaker:InstanceTypes": ["ml.m5.xlarge"]}}


def test_the_integrator_sends_dead_letters_again_and_takes_nothing_from_a_queue(assembly: Assembly) -> None:
    (taken,) = places(assembly, "ClinicalIntegrator", "sqs:ReceiveMessage")
    (sent,) = places(assembly, "ClinicalIntegrator", "sqs:SendMessage")
    names = {
        name
        for stack in ("catalog", "inference")
        for name, resource in assembly.template(stack)["Resources"].items()
        if resource["Type"] == "AWS::SQS::Queue"
    }
    for kind, granted in (("DeadLetters", json.loads(taken)), ("Queue", json.loads(sent))):
        ids = {arn.rsplit("-", 1)[1].removesuffix("*") for arn in granted}
        assert ids == {f"{path}{kind}" for path in ("Index", "Announce", "Events")}
        # CloudFormation names a queue after its stack and its logical id.
        assert all(any(name.startswith(one) for name in names) for one in ids)
    others = {role for role, actions in roles(assembly).items() if "sqs:SendMessage" in actions}
    assert {one for one in others if one.startswith("studio/")} == {"studio/ClinicalIntegrator"}


def test_the_start_script_is_a_configuration_of_its_own_content(assembly: Assembly) -> None:
    config = assembly.only("AWS::SageMaker::StudioLifecycleConfig")["Properties"]
    script = base64.b64decode(config["StudioLifecycleConfigContent"])
    digest = hashlib.sha256(script).hexdigest()[:16]
    # Everything of it is create-only, the name included: another script has another name.
    assert config["StudioLifecycleConfigName"] == f"monai-{assembly.environment}-{digest}"
    assert config["StudioLifecycleConfigAppType"] == "JupyterLab"
    assert len(config["StudioLifecycleConfigContent"]) <= 16_384
    assert script.startswith(b"#!/bin/bash\n")
    assert b"\nset -eu\n" in script
    assert f"environment='{assembly.environment}'".encode() in script
    aws = load_environment(assembly.environment).aws
    assert f"bucket='cdk-hnb659fds-assets-{aws.account}-{aws.region}'".encode() in script
    settings = domain(assembly)["Properties"]["DefaultUserSettings"]["JupyterLabAppSettings"]
    assert settings["BuiltInLifecycleConfigArn"]["Fn::GetAtt"][1] == "StudioLifecycleConfigArn"


def test_the_script_reads_the_object_that_everyone_may_read(assembly: Assembly) -> None:
    script = base64.b64decode(
        assembly.only("AWS::SageMaker::StudioLifecycleConfig")["Properties"]["StudioLifecycleConfigContent"]
    ).decode()
    values = dict(line.split("=", 1) for line in script.splitlines() if line.startswith(("bucket=", "key=")))
    bucket, key = values["bucket"].strip("'"), values["key"].strip("'")
    for role in (one.removeprefix("studio/") for one in roles(assembly) if one.startswith("studio/")):
        readable = " ".join(places(assembly, role, "s3:GetObject"))
        assert f'"arn:aws:s3:::{bucket}/{key}"' in readable, role
    assert (assembly.folder / f"asset.{key}").is_file()


def test_what_servers_print_is_encrypted_and_expires(assembly: Assembly) -> None:
    (group,) = [
        resource["Properties"]
        for name, resource in assembly.resources("AWS::Logs::LogGroup")
        if name.startswith("studio/")
    ]
    assert group["LogGroupName"] == "/aws/sagemaker/studio"
    assert "EncryptionKey" in json.dumps(group["KmsKeyId"])
    assert group["RetentionInDays"] == load_environment(assembly.environment).logs.retention_days


def test_a_value_that_would_leave_its_quotes_is_refused() -> None:
    from infra.studio.lifecycle import start_script

    with pytest.raises(ValueError, match="cannot be put"):
        start_script({"BUCKET": "a'; rm -rf /; '"})
    with pytest.raises(ValueError, match="cannot be put"):
        start_script({"UNKNOWN": "a"})
