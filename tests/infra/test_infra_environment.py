"""Environment files: typed, complete, and every problem of a file in one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.environment import FOLDER, EnvironmentFileError, load_delivery, load_environment


def written(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def changed(folder: Path, environment: str, *changes: tuple[str, str]) -> Path:
    """A copy of a shipped file with text replaced."""
    text = (FOLDER / f"{environment}.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return written(folder, environment, text)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_every_shipped_file_is_an_environment(name: str) -> None:
    assert load_environment(name).name == name


def test_only_the_local_environment_names_an_endpoint() -> None:
    local = load_environment("local")
    assert local.local is not None
    assert local.local.endpoint_url.startswith("http://127.0.0.1:")
    assert load_environment("dev").local is None


def test_all_problems_are_reported_at_once_with_the_files_name(tmp_path: Path) -> None:
    folder = changed(
        tmp_path,
        "dev",
        ('account = "111122223333"', 'account = "12"\nprofile = "me"'),
        ('region = "us-east-1"', 'region = "sa-east-1"'),
        ("retain_data = true\n", ""),
        ("minimum_score = 0.9", "minimum_score = 1.5"),
        ('instance_type = "ml.g5.xlarge"\nminimum', 'instance_type = "ml.g5.xlagre"\nminimum'),
        ('task = "lung-segmentation"', 'task = "liver"'),
        ("minimum_instances = 0", "minimum_instances = 7"),
    )
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment("dev", folder=folder)
    message = str(caught.value)
    assert message.splitlines()[0].endswith("dev.toml: 10 problem(s)")
    for part in (
        "aws.account: String should match",
        "aws.profile: unknown key",
        "aws.region: Input should be 'us-east-1', 'us-west-2'",
        "protection.retain_data: missing",
        "training.tasks.0.minimum_score: Input should be less than or equal to 1 (got 1.5)",
        "inference.endpoints.0.instance_type: SageMaker has no ProductionVariantInstanceType 'ml.g5.xlagre'",
        "inference.endpoints.0.task: no training task is called 'liver'",
        "inference.endpoints.0.minimum_instances: 7 is more than maximum_instances 2",
        "network.availability_zones: 'us-east-1a' is not in sa-east-1",
    ):
        assert part in message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://10.0.0.5:4566",
        "http://localhost.example.com",
        "localhost:4566",
        "http://[",
    ],
)
def test_a_local_cloud_is_on_the_loopback_interface(tmp_path: Path, url: str) -> None:
    folder = changed(tmp_path, "local", ("http://127.0.0.1:4566", url))
    with pytest.raises(EnvironmentFileError, match="is not an http\\(s\\) URL on the loopback interface"):
        load_environment("local", folder=folder)


@pytest.mark.parametrize("url", ["http://127.0.0.1:5000", "http://[::1]:4566", "https://s3.localhost:4566"])
def test_every_way_to_write_loopback_is_accepted(tmp_path: Path, url: str) -> None:
    folder = changed(tmp_path, "local", ("http://127.0.0.1:4566", url))
    assert load_environment("local", folder=folder).local is not None


def test_no_other_environment_may_name_an_endpoint(tmp_path: Path) -> None:
    local = (FOLDER / "local.toml").read_text(encoding="utf-8")
    section = local[local.index("[local]") : local.index("[protection]")]
    folder = changed(tmp_path, "dev", ("[protection]", f"{section}\n[protection]"))
    with pytest.raises(EnvironmentFileError, match="only the environment `local` may have this section"):
        load_environment("dev", folder=folder)


def test_machines_with_and_without_local_storage_do_not_share_a_task(tmp_path: Path) -> None:
    folder = changed(tmp_path, "dev", ('"ml.g6.2xlarge"', '"ml.p3.2xlarge"'))
    with pytest.raises(
        EnvironmentFileError, match=r"tasks\.0\.other_instance_types: with and without local storage"
    ):
        load_environment("dev", folder=folder)


def test_names_are_unique_and_the_file_is_called_like_its_environment(tmp_path: Path) -> None:
    text = (FOLDER / "dev.toml").read_text(encoding="utf-8")
    endpoint = text[text.index("[[inference.endpoints]]") : text.index("[[inference.rules]]")]
    written(tmp_path, "staging", text + "\n" + endpoint)
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment("staging", folder=tmp_path)
    assert caught.value.problems == [
        "name: is 'dev', but the file is called staging.toml",
        "inference.endpoints: 'lung-segmentation' is there 2 times",
    ]


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFileError,
        match=r"infra/environments/nowhere\.toml.*\n.*environments here: dev, local, prod, staging",
    ):
        load_environment("nowhere")
    written(tmp_path, "dev", "name = ")
    with pytest.raises(EnvironmentFileError, match="not a TOML file"):
        load_environment("dev", folder=tmp_path)


@pytest.mark.parametrize(
    ("environment", "old", "new", "problem"),
    [
        (
            "dev",
            'cidr = "10.61.0.0/22"',
            'cidr = "8.8.0.0/22"',
            "network.cidr: '8.8.0.0/22' is not",
        ),
        ("dev", 'cidr = "10.61.0.0/22"', 'cidr = "10.61.0.1/22"', "network.cidr: 10.61.0.1/22 has host bits"),
        ("dev", 'cidr = "10.61.0.0/22"\n', "", "network.cidr: missing (or network.existing)"),
        ("dev", '"us-east-1b"]', '"us-east-1a"]', "network.availability_zones: two different ones at least"),
        ("dev", "max_wait_minutes = 480", "max_wait_minutes = 5", "5 is less than max_runtime_minutes 240"),
        ("dev", "max_wait_minutes = 480\n", "", "tasks.0.max_wait_minutes: missing (training is on spot"),
        ("dev", "spot = true", "spot = false", "tasks.0.max_wait_minutes: only with spot"),
        ("dev", 'auth = "IAM"', 'auth = "SSO"', "studio.users.2.sso_user: missing (auth is SSO)"),
        ("prod", 'auth = "SSO"', 'auth = "IAM"', "studio.users.0.sso_user: only with auth SSO"),
        (
            "prod",
            'persona = "clinical-integrator"\nsso_user = "clinical-integrator@example.com"',
            'persona = "data-scientist"\nsso_user = "Model-Reviewer@example.com"',
            "studio.users: model-reviewer@example.com trains models and approves them",
        ),
        ("prod", "retain_data = true", "retain_data = false", "protection.retain_data: must be true where"),
        (
            "dev",
            "termination_protection = true",
            "termination_protection = false",
            "protection.termination_protection: must be true where patient_data is",
        ),
        ("dev", 'modality = ["CT"]', 'modality = ["CT", "SEG"]', "what inference stores must never start"),
        ("dev", 'endpoint = "lung-segmentation"', 'endpoint = "liver"', "no endpoint is called 'liver'"),
        (
            "dev",
            'modality = ["CT"]',
            'modality = ["CT"]\nseries_description = "("',
            "not a regular",
        ),
        ("dev", 'mode = "asynchronous"', 'mode = "magic"', "inference.endpoints.0.mode: "),
        ("dev", 'mode = "asynchronous"\n', "", "inference.endpoints.0.mode: missing"),
    ],
)
def test_a_contradiction_is_named(tmp_path: Path, environment: str, old: str, new: str, problem: str) -> None:
    folder = changed(tmp_path, environment, (old, new))
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment(environment, folder=folder)
    assert problem in str(caught.value)


SERVERLESS = """[[inference.endpoints]]
name = "small"
task = "lung-segmentation"
mode = "serverless"
memory_mib = 4096
maximum_concurrency = 2

[[inference.rules]]"""


def test_serverless_only_without_patient_data(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFileError, match=r"endpoints\.1\.mode: a serverless endpoint cannot"):
        load_environment("dev", folder=changed(tmp_path, "dev", ("[[inference.rules]]", SERVERLESS)))
    folder = changed(
        tmp_path,
        "dev",
        ("[[inference.rules]]", SERVERLESS),
        ("patient_data = true", "patient_data = false"),
    )
    assert load_environment("dev", folder=folder).inference.endpoints[1].mode == "serverless"


def test_an_existing_network_takes_the_place_of_our_own(tmp_path: Path) -> None:
    existing = """[network.existing]
vpc_id = "vpc-0123456789abcdef0"
subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
make_endpoints = false
endpoint_cidrs = ["10.0.0.0/24"]
"""
    own = 'cidr = "10.61.0.0/22"\navailability_zones = ["us-east-1a", "us-east-1b"]\n'
    network = load_environment("dev", folder=changed(tmp_path, "dev", (own, existing))).network
    assert network.existing is not None
    with pytest.raises(EnvironmentFileError, match=r"network\.cidr: not with an existing VPC"):
        load_environment("dev", folder=changed(tmp_path, "dev", (own, own + existing)))
    making = existing.replace("make_endpoints = false\nendpoint_cidrs", "make_endpoints = true\n# ")
    with pytest.raises(EnvironmentFileError, match=r"existing\.route_table_ids: missing"):
        load_environment("dev", folder=changed(tmp_path, "dev", (own, making)))


def test_the_shipped_delivery_promotes_shipped_environments() -> None:
    delivery = load_delivery()
    assert {load_environment(name).name for name in delivery.environments} == set(delivery.environments)
    assert delivery.before("dev") is None
    assert delivery.after("dev") == delivery.before("prod") == "staging"
    assert delivery.after("prod") is None
    assert delivery.after("local") is None


def test_problems_of_a_delivery_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "delivery.toml"
    path.write_text('environments = ["dev", "dev"]\napproval_before = ["qa"]\nextra = 1\n')
    with pytest.raises(EnvironmentFileError, match=r"3 problem\(s\)") as caught:
        load_delivery(path)
    assert "extra: unknown key" in caught.value.problems
