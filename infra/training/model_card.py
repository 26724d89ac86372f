"""The model card of a package: what is known when it is registered, for a person to complete.

Figures are not in it: only a condition can read the evaluation's file. The card names the evaluation, which
has them, and beside it a card with figures (model-card.json).

The schema of cards of packages is that of SageMaker Model Cards without `model_package_details` and with two
properties of `model_overview`:
https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-details.html#model-card-schema
"""

from __future__ import annotations

from typing import Any

from infra.training.references import Reference, join, json_text, of_step, parameter
from infra.training.surroundings import EVALUATION_FILE, Surroundings


def model_card(*, around: Surroundings, archive: Reference) -> dict[str, Any]:
    """Content of the card, as text that SageMaker completes when the pipeline runs.

    Args:
        around: What the pipeline refers to.
        archive: URI of the trained model.
    """
    return json_text(
        {
            "model_overview": {
                "model_creator": f"Pipeline {around.model_package_group_name}",
                "model_artifact": [archive],
            },
            "intended_uses": {
                "risk_rating": "Unknown",
                "explanations_for_risk_rating": "Nobody has rated it yet. Who approves the package does.",
            },
            "training_details": {
                "training_job_details": {
                    "training_arn": of_step("Train", "TrainingJobArn"),
                    "training_datasets": [parameter("ManifestUri")],
                    "training_environment": {"container_image": [around.training_image]},
                    # Not the overrides: they are JSON, and their quotes would end the text that they are in.
                    "user_provided_hyper_parameters": [
                        {"name": "bundle", "value": parameter("Bundle")},
                        {"name": "max_steps", "value": join(parameter("MaxSteps"))},
                    ],
                }
            },
            "evaluation_details": [
                {
                    "name": "Evaluation",
                    "evaluation_job_arn": of_step("Evaluate", "ProcessingJobArn"),
                    "datasets": [parameter("ManifestUri")],
                    "metadata": {
                        "evaluation": around.in_evaluation(EVALUATION_FILE),
                        "report": around.in_evaluation("report.html"),
                        "card with figures": around.in_evaluation("model-card.json"),
                    },
                }
            ],
            "additional_information": {
                "custom_details": {
                    "run": parameter("Run"),
                    # Who starts the pipeline may lower them. Who approves has to see that.
                    "minimum score": join(parameter("MinimumScore")),
                    "minimum improvement": join(parameter("MinimumImprovement")),
                    "held-out patients required": join(parameter("RequireHeldOut")),
                }
            },
        }
    )
