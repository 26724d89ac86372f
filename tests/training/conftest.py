"""A training job and an evaluation of phantoms that several tests look at, run once."""

from __future__ import annotations

import pytest
from training_jobs import Finished, lay_out_evaluation, run_job, run_main
from training_phantoms import lay_out_training


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A training of 12 steps on two phantoms with a third one to validate on."""
    base = tmp_path_factory.mktemp("trained")
    lay_out_training(
        base,
        {"train": ["chest-1", "chest-2"], "validation": ["chest-3"]},
        bundle="ct_segmentation",
        max_steps=12,
        validate_every=6,
        checkpoint_every=5,
    )
    return run_job("train", base)


@pytest.fixture(scope="session")
def evaluated(trained: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The trained model, packed as SageMaker packs it, evaluated on a phantom it has not seen."""
    base = tmp_path_factory.mktemp("evaluated")
    lay_out_evaluation(trained, base, {"test": ["chest-4"], "train": ["chest-1"]})
    return Finished(base=base, exit_code=run_main("evaluate", base), output="")
