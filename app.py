"""The CDK application. `cdk synth -c env=dev` synthesizes one environment; without `-c env` it is `local`."""

from infra.application import build_app

build_app().synth()
