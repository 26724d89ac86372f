"""Environment files: typed, complete, and every problem of a file in one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.environment import FOLDER, EnvironmentFileError, load_environment


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
        ("minimum_dice = 0.9", "minimum_dice = 1.5"),
        ('instance_type = "ml.g5.xlarge"\nminimum', 'instance_type = "ml.g5.xlagre"\nminimum'),
        ('task = "lung-segmentation"', 'task = "liver"'),
        ("minimum_instances = 0", "minimum_instances = 7"),
    )
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment("dev", folder=folder)
    message = str(caught.value)
    assert message.splitlines()[0].endswith("dev.toml: 8 problem(s)")
    for part in (
        "aws.account: String should match",
        "aws.profile: unknown key",
        "aws.region: Input should be 'us-east-1', 'us-west-2'",
        "protection.retain_data: missing",
        "training.tasks.0.minimum_dice: Input should be less than or equal to 1 (got 1.5)",
        "inference.endpoints.0.instance_type: SageMaker has no ProductionVariantInstanceType 'ml.g5.xlagre'",
        "inference.endpoints.0.task: no training task is called 'liver'",
        "inference.endpoints.0.minimum_instances: 7 is more than maximum_instances 2",
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
    endpoint = text[text.index("[[inference.endpoints]]") :]
    written(tmp_path, "staging", text + "\n" + endpoint)
    with pytest.raises(EnvironmentFileError) as caught:
        load_environment("staging", folder=tmp_path)
    assert caught.value.problems == [
        "name: is 'dev', but the file is called staging.toml",
        "inference.endpoints: 'lung-segmentation' is there 2 times",
    ]


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFileError, match=r"infra/environments/nowhere\.toml.*\n.*environments here: dev, local"
    ):
        load_environment("nowhere")
    written(tmp_path, "dev", "name = ")
    with pytest.raises(EnvironmentFileError, match="not a TOML file"):
        load_environment("dev", folder=tmp_path)
