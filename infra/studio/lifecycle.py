"""What happens when a notebook server starts: the toolkit is installed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.assets.toolkit import KERNEL, STUDIO_PYTHON, ToolkitAsset

SCRIPT = Path(__file__).with_name("start.sh")

LIMIT = 16_384
"""Characters of a lifecycle configuration, in base64
(https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateStudioLifecycleConfig.html).
"""


class StartScript(Construct):
    """The lifecycle configuration of every JupyterLab server.

    Nothing of one can be changed, and it must have a name: so the name holds a hash of the script, and
    another script is another configuration beside the old one.
    """

    def __init__(
        self, scope: Construct, id: str, *, environment: str, region: str, toolkit: ToolkitAsset
    ) -> None:
        super().__init__(scope, id)
        script = start_script(
            {
                "BUCKET": toolkit.bucket,
                "KEY": toolkit.key,
                "REGION": region,
                "ENVIRONMENT": environment,
                "VERSION": toolkit.version,
                "PYTHON": STUDIO_PYTHON,
                "KERNEL": KERNEL,
            }
        )
        content = base64.b64encode(script.encode()).decode()
        if len(content) > LIMIT:
            raise ValueError(f"{SCRIPT.name} is {len(content)} characters in base64, more than {LIMIT}")
        # Only short names fit beside the hash: a domain's names have at most 63 characters.
        name = f"monai-{environment}-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
        config = sagemaker.CfnStudioLifecycleConfig(
            self,
            "Config",
            studio_lifecycle_config_app_type="JupyterLab",
            studio_lifecycle_config_content=content,
            studio_lifecycle_config_name=name,
        )
        self.arn = config.attr_studio_lifecycle_config_arn


def start_script(values: Mapping[str, str]) -> str:
    """The script with its values."""
    script = SCRIPT.read_text(encoding="utf-8")
    for name, value in values.items():
        if "'" in value or f"@{name}@" not in script:
            raise ValueError(f"{name}={value!r} cannot be put into {SCRIPT.name}")
        script = script.replace(f"@{name}@", value)
    return script
