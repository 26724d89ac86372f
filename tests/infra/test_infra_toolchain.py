"""The delivery: one assembly through every environment in order, and who may do what on the way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cfnlint.api import ManualArgs, lint
from infra_assembly import Assembly, Resource
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from infra.environment import load_delivery, load_environment
from infra.repository import ROOT

DELIVERED = ("dev", "staging", "prod")
ACCOUNTS = {"dev": "111122223333", "staging": "222233334444", "prod": "333344445555"}
TOOLING = "444455556666"
REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The assembly of the delivery pipeline."""

    folder: Path
    template: Resource

    def resources(self, type: str) -> dict[str, Resource]:
        found: dict[str, Resource] = {
            name: resource["Properties"]
            for name, resource in self.template["Resources"].items()
            if resource["Type"] == type
        }
        return found

    @property
    def stages(self) -> dict[str, list[Resource]]:
        """The actions of each stage of the pipeline, in the order in which they run."""
        (pipeline,) = self.resources("AWS::CodePipeline::Pipeline").values()
        return {
            stage["Name"]: sorted(stage["Actions"], key=lambda action: action["RunOrder"])
            for stage in pipeline["Stages"]
        }

    def build(self, name: str) -> Resource:
        """The build project whose logical id contains this."""
        (project,) = [p for id, p in self.resources("AWS::CodeBuild::Project").items() if name in id]
        return project

    def commands(self, name: str) -> list[str]:
        specification = self.build(name)["Source"]["BuildSpec"]
        if specification.endswith(".yaml"):
            # Too long for a template: in the assembly, which is the input of the build.
            specification = (self.folder / specification).read_text()
        phases = yaml.safe_load(specification)["phases"]
        return [command for phase in phases.values() for command in phase.get("commands", [])]


def template_of(folder: Path, name: str) -> Resource:
    found: Resource = json.loads((folder / name).read_text())
    return found


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    from infra.application import build_app

    folder = tmp_path_factory.mktemp("cdk-toolchain")
    build_app(context={"env": "toolchain"}, outdir=folder).synth()
    return Toolchain(folder=folder, template=template_of(folder, "toolchain.template.json"))


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resource]:
    """The template of each account's stack."""
    from infra.application import build_app

    folder = tmp_path_factory.mktemp("cdk-github")
    build_app(context={"env": "github"}, outdir=folder).synth()
    return {name: template_of(folder, f"{name}-github.template.json") for name in DELIVERED}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(policy: Resource) -> Iterator[tuple[list[str], list[Any], Resource]]:
    for statement in policy["PolicyDocument"]["Statement"]:
        yield listed(statement["Action"]), listed(statement["Resource"]), statement


def test_the_stages_are_in_the_order_of_the_delivery(toolchain: Toolchain) -> None:
    assert load_delivery().environments == DELIVERED
    assert list(toolchain.stages) == ["Source", "Build", "UpdatePipeline", "Assets", *DELIVERED]


@pytest.mark.parametrize("environment", DELIVERED)
def test_an_environment_is_scanned_before_and_checked_after(toolchain: Toolchain, environment: str) -> None:
    actions = toolchain.stages[environment]
    deployed = [
        action["RunOrder"] for action in actions if action["ActionTypeId"]["Provider"] == "CloudFormation"
    ]
    order = {action["Name"]: action["RunOrder"] for action in actions}
    assert order[f"{environment}-image-scan"] < min(deployed)
    assert order[f"{environment}-check"] > max(deployed)


def test_a_person_lets_production_have_it_after_the_scan(toolchain: Toolchain) -> None:
    approvals = {
        (stage, action["Name"]): action["RunOrder"]
        for stage, actions in toolchain.stages.items()
        for action in actions
        if action["ActionTypeId"]["Category"] == "Approval"
    }
    assert set(approvals) == {("prod", "prod-approval")}
    actions = toolchain.stages["prod"]
    order = {action["Name"]: action["RunOrder"] for action in actions}
    deployed = [
        action["RunOrder"] for action in actions if action["ActionTypeId"]["Provider"] == "CloudFormation"
    ]
    assert order["prod-image-scan"] < order["prod-approval"] < min(deployed)


@pytest.mark.parametrize("environment", DELIVERED)
def test_what_is_promoted_is_what_the_environment_alone_would_get(
    toolchain: Toolchain, synthesize: Callable[[str], Assembly], environment: str
) -> None:
    alone = synthesize(environment).folder / f"assembly-{environment}"
    promoted = toolchain.folder / f"assembly-{environment}"
    names = sorted(path.name for path in alone.glob("*.template.json"))
    assert names == sorted(path.name for path in promoted.glob("*.template.json"))
    for name in names:
        assert template_of(promoted, name) == template_of(alone, name), name


def test_every_deployment_takes_its_template_from_the_one_synthesis(toolchain: Toolchain) -> None:
    (synth,) = toolchain.stages["Build"]
    outputs = {artifact["Name"] for artifact in synth["OutputArtifacts"]}
    for environment in DELIVERED:
        for action in toolchain.stages[environment]:
            if action["ActionTypeId"]["Provider"] == "CloudFormation":
                for artifact in action.get("InputArtifacts", []):
                    if artifact["Name"] != f"{environment}_parameters_Output":
                        assert artifact["Name"] in outputs, action["Name"]
                template = action["Configuration"].get("TemplatePath")
                assert template is None or template.split("::")[0] in outputs


@pytest.mark.parametrize("environment", DELIVERED)
def test_a_delivery_keeps_the_models_that_an_environment_runs(toolchain: Toolchain, environment: str) -> None:
    # CodePipeline gives parameters that it is not told the template's defaults, which mean: no model.
    from infra.toolchain.stack_parameters import declared

    actions = {action["Name"]: action for action in toolchain.stages[environment]}
    own = declared(toolchain.folder, environment=environment)
    assert own == {"LungSegmentationModelPackageArn"}
    folder = toolchain.folder / f"assembly-{environment}"
    for path in folder.glob("*.template.json"):
        others = set(template_of(folder, path.name).get("Parameters", {}))
        assert "inference" in path.name or others <= {"BootstrapVersion"}, path.name
    read, prepare = actions[f"{environment}-parameters"], actions[f"monai-{environment}-inference.Prepare"]
    (artifact,) = [output["Name"] for output in read["OutputArtifacts"]]
    assert artifact in [one["Name"] for one in prepare["InputArtifacts"]]
    assert prepare["Configuration"]["TemplateConfiguration"] == f"{artifact}::inference.json"
    # After the approval, which can take days, and before everything else.
    earlier = [order["RunOrder"] for name, order in actions.items() if name.endswith(("-scan", "-approval"))]
    deployed = [one["RunOrder"] for one in actions.values() if "StackName" in one["Configuration"]]
    assert max(earlier) < read["RunOrder"] < min(deployed)
    specification = json.loads(toolchain.build(f"{environment}parameters")["Source"]["BuildSpec"])
    assert specification["artifacts"]["base-directory"] == "build/parameters"
    # The check that writes it cannot write the assembly.
    (written,) = [
        resources
        for policy in toolchain.resources("AWS::IAM::ManagedPolicy").values()
        for actions_, resources, _ in statements(policy)
        if actions_ == ["s3:PutObject"]
    ]
    keys = [resource["Fn::Join"][1][-1] for resource in written]
    assert f"/*/{artifact[:10]}*" in keys
    assert len(keys) == len(DELIVERED)


def test_each_account_is_entered_through_its_bootstrap_role(toolchain: Toolchain) -> None:
    for environment, account in ACCOUNTS.items():
        roles = {
            json.dumps(action["RoleArn"])
            for action in toolchain.stages[environment]
            if action["ActionTypeId"]["Provider"] == "CloudFormation"
        }
        (role,) = roles
        assert f":iam::{account}:role/cdk-hnb659fds-deploy-role-{account}-{REGION}" in role


def test_the_pipeline_renews_itself_with_the_pinned_command_line(toolchain: Toolchain) -> None:
    (pipeline,) = toolchain.resources("AWS::CodePipeline::Pipeline").values()
    assert pipeline["RestartExecutionOnUpdate"] is True
    assert pipeline["PipelineType"] == "V2"
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"]
    commands = toolchain.commands("SelfMutation")
    assert f"npm install -g aws-cdk@{pinned}" in commands
    assert any(command.startswith("cdk -a . deploy toolchain ") for command in commands)
    for asset in ("DockerAsset", "FileAsset"):
        installs = [command for command in toolchain.commands(asset) if command.startswith("npm install")]
        assert installs
        assert all(command.rpartition("@")[2][0].isdigit() for command in installs)


def test_everything_is_tested_before_anything_is_synthesized(toolchain: Toolchain) -> None:
    commands = toolchain.commands("BuildSynth")
    wanted = ["make lint", "make test", "make sbom", "make synth ENV=toolchain"]
    assert [command for command in commands if command in wanted] == wanted
    artifacts = json.loads(toolchain.build("BuildSynth")["Source"]["BuildSpec"])["artifacts"]
    assert {part["base-directory"] for part in artifacts["secondary-artifacts"].values()} == {
        "cdk.out",
        "build/sbom",
    }


def test_an_image_is_built_once_for_all_accounts(toolchain: Toolchain) -> None:
    published = [
        re.fullmatch(r'cdk-assets --path "assembly-(\w+)/\S+" --verbose publish "(\w+):(\d+)-\S+"', command)
        for command in toolchain.commands("DockerAsset")
        if "publish" in command
    ]
    places = [match.groups() for match in published if match]
    assert len(places) == len(published)
    images = {image for _, image, _ in places}
    # The second and third time, cdk-assets finds the image of this hash in the same Docker engine.
    assert len(images) == 3
    assert sorted(places) == sorted(
        (environment, image, account) for environment, account in ACCOUNTS.items() for image in images
    )
    privileged = [
        name
        for name, project in toolchain.resources("AWS::CodeBuild::Project").items()
        if project["Environment"]["PrivilegedMode"]
    ]
    (only,) = privileged
    assert "DockerAsset" in only


def test_there_is_no_secret_to_steal(toolchain: Toolchain) -> None:
    (source,) = toolchain.stages["Source"]
    assert source["ActionTypeId"]["Provider"] == "CodeStarSourceConnection"
    assert source["Configuration"]["ConnectionArn"] == load_delivery().source.connection_arn
    # CodeConnections looks only at actions whose service is that of the connection's ARN.
    using = [
        statement
        for policy in toolchain.resources("AWS::IAM::Policy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if "codeconnections:UseConnection" in statement["Action"]
    ]
    assert [statement["Resource"] for statement in using] == [load_delivery().source.connection_arn]
    assert not toolchain.resources("AWS::SecretsManager::Secret")
    assert not toolchain.resources("AWS::IAM::User")
    for name, project in toolchain.resources("AWS::CodeBuild::Project").items():
        assert project["Source"]["Type"] == "CODEPIPELINE", name
        assert not project["Environment"].get("EnvironmentVariables"), name
    text = json.dumps(toolchain.template).lower()
    for word in ("oauthtoken", "password", "secretsmanager", "aws_secret_access_key"):
        assert word not in text


def test_what_the_pipeline_keeps_is_encrypted_logged_and_tls_only(toolchain: Toolchain) -> None:
    ((key_id, key),) = toolchain.resources("AWS::KMS::Key").items()
    assert key["EnableKeyRotation"] is True
    buckets = toolchain.resources("AWS::S3::Bucket")
    assert len(buckets) == 2
    for name, bucket in buckets.items():
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}, name
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, name
        policies = [
            policy["PolicyDocument"]["Statement"]
            for policy in toolchain.resources("AWS::S3::BucketPolicy").values()
            if policy["Bucket"] == {"Ref": name}
        ]
        assert any(
            one["Effect"] == "Deny" and one.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
            for policy in policies
            for one in policy
        ), name
    (artifacts,) = [bucket for bucket in buckets.values() if "LoggingConfiguration" in bucket]
    (rule,) = artifacts["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == {"Fn::GetAtt": [key_id, "Arn"]}
    ((group_id, group),) = toolchain.resources("AWS::Logs::LogGroup").items()
    assert group["KmsKeyId"] == {"Fn::GetAtt": [key_id, "Arn"]}
    for name, project in toolchain.resources("AWS::CodeBuild::Project").items():
        assert key_id in json.dumps(project["EncryptionKey"]), name
        assert project["LogsConfig"]["CloudWatchLogs"] == {
            "GroupName": {"Ref": group_id},
            "Status": "ENABLED",
        }, name


def test_only_deployment_roles_of_the_delivery_read_artifacts_from_outside(toolchain: Toolchain) -> None:
    ((_, key),) = toolchain.resources("AWS::KMS::Key").items()
    documents = [key["KeyPolicy"]] + [
        policy["PolicyDocument"] for policy in toolchain.resources("AWS::S3::BucketPolicy").values()
    ]
    foreign = set()
    for statement in (one for document in documents for one in document["Statement"]):
        for principal in listed(
            statement["Principal"].get("AWS", []) if statement["Principal"] != "*" else []
        ):
            text = json.dumps(principal)
            foreign |= {text for account in ACCOUNTS.values() if account in text}
    assert foreign
    for principal in foreign:
        assert "role/cdk-hnb659fds-deploy-role-" in principal


def test_the_checks_become_roles_that_look_and_nothing_else(toolchain: Toolchain) -> None:
    ((_, policy),) = toolchain.resources("AWS::IAM::ManagedPolicy").items()
    become = [resources for actions, resources, _ in statements(policy) if actions == ["sts:AssumeRole"]]
    assert become == [
        [
            arn
            for environment, account in ACCOUNTS.items()
            for arn in (
                f"arn:aws:iam::{account}:role/cdk-hnb659fds-lookup-role-{account}-{REGION}",
                f"arn:aws:iam::{account}:role/monai-{environment}-verification",
            )
        ]
    ]
    actions = {action for actions, _, _ in statements(policy) for action in actions}
    assert actions == {
        "kms:Decrypt", "kms:GenerateDataKey",
        "logs:CreateLogStream", "logs:PutLogEvents",
        "s3:GetBucketAcl", "s3:GetBucketLocation", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject",
        "sts:AssumeRole",
    }  # fmt: skip
    for environment in DELIVERED:
        for step in ("imagescan", "parameters", "check"):
            project = toolchain.build(f"{environment}{environment}{step}")
            assert "ChecksRole" in json.dumps(project["ServiceRole"])


def test_publishing_enters_each_account_through_its_publishing_role(toolchain: Toolchain) -> None:
    for kind, role in (("Docker", "image"), ("File", "file")):
        (policy,) = [
            policy
            for name, policy in toolchain.resources("AWS::IAM::Policy").items()
            if f"Assets{kind}Role" in name
        ]
        become = [resources for actions, resources, _ in statements(policy) if actions == ["sts:AssumeRole"]]
        text = json.dumps(become)
        assert text.count(":role/") == len(ACCOUNTS)
        for account in ACCOUNTS.values():
            assert f":{account}:role/cdk-hnb659fds-{role}-publishing-role-{account}-{REGION}" in text


def test_every_acknowledgement_of_the_toolchain_answers_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import infra.application
    from infra.acknowledgements import Acknowledgement, toolchain_acknowledgements

    given: list[Acknowledgement] = []
    monkeypatch.setattr(
        infra.application,
        "acknowledge_toolchain",
        lambda toolchain: given.extend(toolchain_acknowledgements(toolchain)),
    )
    infra.application.build_app(
        context={"env": "toolchain", "@aws-cdk/core:failSynthOnValidationErrors": False}, outdir=tmp_path
    ).synth()
    found = set()
    for plugin in json.loads((tmp_path / "validation-report.json").read_text())["pluginReports"]:
        for violation in plugin["violations"]:
            for construct in violation["violatingConstructs"]:
                rule = violation["ruleName"].removeprefix(f"{plugin['pluginName']}::")
                found.add((construct["constructPath"], rule))
    # The environments of the same assembly are clean by their own acknowledgements.
    assert {path.split("/")[0] for path, _ in found} == {"toolchain"}

    def answers(entry: Acknowledgement, path: str, rule: str) -> bool:
        inside = f"{path}/".startswith(f"toolchain/{entry.path}/")
        return inside and entry.finding == rule

    assert len({(entry.path, entry.finding) for entry in given}) == len(given)
    for entry in given:
        assert any(answers(entry, *one) for one in found), entry
        assert len(entry.reason.split()) > 15
    for one in found:
        assert any(answers(entry, *one) for entry in given), one


def test_the_templates_of_the_delivery_are_clean(toolchain: Toolchain, github: dict[str, Resource]) -> None:
    for template in (toolchain.template, *github.values()):
        matches = lint(json.dumps(template), config=ManualArgs(regions=[REGION], ignore_checks=["W3005"]))
        # A matter of style in what CDK Pipelines writes, which the linter reports as a wrong configuration.
        wrong = [str(match) for match in matches if "Prefer using Fn::Sub over Fn::Join" not in str(match)]
        assert not wrong


def test_templates(toolchain: Toolchain, github: dict[str, Resource], snapshot: SnapshotAssertion) -> None:
    # Hashes of assets change with every edit; the name of a build specification has one of the pipeline.
    masked = re.sub(r"[0-9a-f]{40,64}", "<hash>", json.dumps({"toolchain": toolchain.template, **github}))
    assert json.loads(masked) == snapshot(extension_class=JSONSnapshotExtension)


def test_nothing_is_looked_up(toolchain: Toolchain) -> None:
    assert not json.loads((toolchain.folder / "manifest.json").read_text()).get("missing")


@pytest.mark.parametrize("environment", DELIVERED)
def test_github_is_trusted_for_one_environment_of_one_repository(
    github: dict[str, Resource], environment: str
) -> None:
    resources = github[environment]["Resources"].values()
    assert sorted(resource["Type"] for resource in resources) == [
        "AWS::IAM::ManagedPolicy", "AWS::IAM::OIDCProvider", "AWS::IAM::Role",
    ]  # fmt: skip
    properties = {resource["Type"]: resource["Properties"] for resource in resources}
    provider = properties["AWS::IAM::OIDCProvider"]
    assert provider["Url"] == "https://token.actions.githubusercontent.com"
    assert provider["ClientIdList"] == ["sts.amazonaws.com"]
    (trust,) = properties["AWS::IAM::Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert set(trust["Principal"]) == {"Federated"}
    repository = load_delivery().source.repository
    # StringEquals, not StringLike: no other repository or environment has this subject, nor a job without an
    # environment. Any branch could have it: which ones may, GitHub's settings of the environment say.
    assert trust["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:{repository}:environment:{environment}",
        }
    }
    account = ACCOUNTS[environment]
    ((actions, may, _),) = statements(properties["AWS::IAM::ManagedPolicy"])
    assert actions == ["sts:AssumeRole"]
    roles = [
        f"cdk-hnb659fds-{kind}-role-{account}-{REGION}"
        for kind in ("deploy", "file-publishing", "image-publishing", "lookup")
    ]
    assert may == [
        f"arn:aws:iam::{account}:role/{name}" for name in (*roles, f"monai-{environment}-verification")
    ]


WORKFLOW = ROOT / ".github" / "workflows" / "delivery.yml"


@pytest.fixture(scope="module")
def workflow() -> Resource:
    document: Resource = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return document


def test_the_workflow_has_the_order_of_the_delivery(workflow: Resource) -> None:
    jobs = workflow["jobs"]
    assert list(jobs) == ["verify", "assembly", *(f"deploy-{name}" for name in DELIVERED)]
    assert jobs["assembly"]["needs"] == "verify"
    before = None
    for environment in DELIVERED:
        job = jobs[f"deploy-{environment}"]
        # The environment of GitHub is what the role trusts and where the reviewers are.
        assert job["environment"] == environment
        assert listed(job["needs"]) == (["assembly", before] if before else ["assembly"])
        before = f"deploy-{environment}"


def test_only_deployments_sign_in_and_nothing_has_a_secret(workflow: Resource) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        if name.startswith("deploy-"):
            assert job["permissions"] == {"contents": "read", "id-token": "write"}, name
        else:
            assert "permissions" not in job, name
    text = WORKFLOW.read_text(encoding="utf-8")
    for word in ("secrets.", "aws-access-key-id", "pull_request", "workflow_run", "github.event"):
        assert word not in text


def test_the_workflow_runs_for_the_branch_of_the_delivery(workflow: Resource) -> None:
    # YAML reads the key `on` as true.
    assert workflow[True] == {"push": {"branches": [load_delivery().source.branch]}}
    assert workflow["concurrency"]["cancel-in-progress"] is False


def test_actions_are_pinned_to_commits(workflow: Resource) -> None:
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    for action in used:
        owner, _, commit = action.partition("@")
        assert owner.split("/")[0] in ("actions", "aws-actions"), action
        assert len(commit) == 40, action
        assert set(commit) <= set("0123456789abcdef"), action


def test_every_deployment_takes_the_same_assembly(workflow: Resource) -> None:
    synthesized = [
        name
        for name, job in workflow["jobs"].items()
        if any("make synth" in step.get("run", "") for step in job["steps"])
    ]
    assert synthesized == ["assembly"]
    for environment in DELIVERED:
        steps = workflow["jobs"][f"deploy-{environment}"]["steps"]
        fetched = [step["with"] for step in steps if "download-artifact" in step.get("uses", "")]
        assert fetched == [{"name": "assembly"}]
        runs = [step["run"] for step in steps if "run" in step]
        order = ["cdk publish-assets", "image_scan", "cdk deploy", "environment_check"]
        found = [next(i for i, run in enumerate(runs) if part in run) for part in order]
        assert found == sorted(found)
        for run in runs:
            if "cdk " in run and run.startswith("npx"):
                assert "--app cdk.out" in run
                assert f"'{environment}/**'" in run
        (signed_in,) = [step["with"] for step in steps if "configure-aws-credentials" in step.get("uses", "")]
        expression = f"${{{{ fromJSON(needs.assembly.outputs.targets).{environment}.role }}}}"
        assert signed_in["role-to-assume"] == expression


def test_the_workflow_gets_roles_and_regions_from_the_environment_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.toolchain.targets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == {
        name: {
            "role": f"arn:aws:iam::{load_environment(name).aws.account}:role/monai-{name}-github",
            "region": load_environment(name).aws.region,
        }
        for name in DELIVERED
    }


def test_bills_of_materials_name_what_the_lock_files_pin() -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True, capture_output=True)
    locks = {
        "platform": ROOT / "requirements.txt",
        "runtime": ROOT / "runtime" / "requirements.txt",
        "training": ROOT / "training" / "requirements.txt",
        "arrival": ROOT / "arrival" / "requirements.txt",
        **{
            f"function-{lock.parent.name}": lock
            for lock in (ROOT / "runtime" / "functions").glob("*/requirements.txt")
        },
    }
    folder = ROOT / "build" / "sbom"
    for name, lock in locks.items():
        bill = json.loads((folder / f"{name}.json").read_text())
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
        pinned = {line.split()[0] for line in lock.read_text().splitlines() if line[:1].isalnum()}
        assert pinned == {f"{part['name']}=={part['version']}" for part in bill["components"]}, name
