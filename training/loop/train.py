"""A training job from manifest to model folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.utils import set_determinism

from healthimaging import Case, Manifest
from training.configuration.bundle import Task
from training.configuration.sources import open_bundle
from training.configuration.training import Section, TrainingConfiguration
from training.data.cache import ItemCache, bytes_in
from training.data.cases import CaseReader, check_cases, read_manifest
from training.data.labels import check_labels
from training.data.preparation import split_transform
from training.data.resolution import CaseLevels
from training.data.sampling import StepLoader, ValidationLoader
from training.data.source import CaseSource
from training.errors import DataError
from training.export.export import Provenance, export_model
from training.job.contract import TrainingJob
from training.job.hyperparameters import Hyperparameters
from training.loop.checkpoint import Checkpoints
from training.loop.loop import Rhythm, TrainingLoop
from training.loop.ranks import Ranks, open_ranks
from training.stopping import StopRequest

_LOG = logging.getLogger(__name__)

OpenReader = Callable[[Mapping[str, int]], CaseReader]
"""Makes the reader of cases for a bundle's channels or classes."""

_SHARE_OF_FREE_SPACE = 0.8
_MOST_WORKERS = 8
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The cases that a training uses."""

    training: Sequence[Case]
    validation: Sequence[Case]

    @classmethod
    def of(cls, manifest: Manifest, *, name: str) -> Splits:
        """Raises:
        DataError: There is nothing to train on.
        """
        training, validation = manifest.split("train"), manifest.split("validation")
        if not training:
            msg = f"Manifest {name} has no case in its training split"
            raise DataError(msg)
        return cls(training=training, validation=validation)


def train(job: TrainingJob, *, open_reader: OpenReader, stop: StopRequest) -> None:
    """Trains, and leaves a model folder that can be served.

    Args:
        job: Folders and hyperparameters.
        open_reader: Where cases come from.
        stop: Looked at after every step.

    Raises:
        TrainingError: The job cannot be done as asked.
        StoppedError: The job was stopped; its state is in the checkpoints.
    """
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch, open_ranks() as ranks:
        if not ranks.is_first:
            # One voice; what fails is still said.
            logging.getLogger("training").setLevel(logging.ERROR)
        _train(job, open_reader=open_reader, stop=stop, ranks=ranks, scratch=Path(scratch))


def _train(
    job: TrainingJob, *, open_reader: OpenReader, stop: StopRequest, ranks: Ranks, scratch: Path
) -> None:
    started = time.monotonic()
    parameters = job.hyperparameters
    manifest = read_manifest(job.manifest_file)
    manifest_digest = hashlib.sha256(job.manifest_file.read_bytes()).hexdigest()
    splits = Splits.of(manifest, name=job.manifest_file.name)
    bundle = open_bundle(parameters.bundle, scratch=scratch, s3=_s3)
    configuration = TrainingConfiguration(
        bundle,
        max_steps=parameters.max_steps,
        max_epochs=parameters.max_epochs,
        seed=parameters.seed,
        batch_size=parameters.batch_size,
        overrides=parameters.overrides,
        amp=parameters.amp,
        accumulate=parameters.accumulate,
    )
    validates = _validates(configuration, splits)
    used = [*splits.training, *(splits.validation if validates else ())]
    reader = open_reader(configuration.channels)
    check_labels(
        used,
        configuration.channels,
        classification=configuration.bundle.task is Task.CLASSIFICATION,
        every_class=True,
    )
    check_cases(used, reader)
    _set_determinism(configuration.seed, strict=parameters.deterministic)
    configuration.distribute(rank=ranks.rank, world_size=ranks.world_size, device=ranks.device)
    cache = _cache(parameters)
    sources = {
        section: _source(configuration, section, cases, reader, cache=cache, parameters=parameters)
        for section, cases in _sections(splits, validates)
    }
    loader = StepLoader(
        source=sources["train"],
        batch_size=configuration.batch_size,
        world_size=ranks.world_size,
        rank=ranks.rank,
        accumulate=parameters.accumulate,
        seed=configuration.seed,
        workers=parameters.workers or _workers(job.cluster.processes_per_host),
        also_keep=[source for section, source in sources.items() if section != "train"],
    )
    try:
        configuration.bring_loaders(
            training=loader,
            validation=_validation_loader(sources["validate"], ranks) if validates else None,
            steps_per_epoch=loader.steps_per_epoch,
        )
        _LOG.info(
            "bundle %s %s, %d training cases, %d validation cases, %d steps of %d items, seed %d, %d ranks",
            *(bundle.name, bundle.version, len(splits.training), len(splits.validation)),
            configuration.max_steps,
            configuration.batch_size * ranks.world_size * parameters.accumulate,
            *(configuration.seed, ranks.world_size),
        )
        loop = TrainingLoop(
            configuration,
            loader=loader,
            checkpoints=Checkpoints(
                job.checkpoint_dir,
                fingerprint=_fingerprint(manifest_digest, configuration, parameters, ranks.world_size),
            ),
            ranks=ranks,
            stop=stop,
            rhythm=Rhythm(
                validate_every=parameters.validate_every if validates else None,
                checkpoint_every=parameters.checkpoint_every,
                patience=parameters.patience,
            ),
        )
        _LOG.info("ready after %.1f s", time.monotonic() - started)
        loop.run()
    finally:
        loader.close()
    if not ranks.is_first:
        return
    network = loop.best_network()
    export_model(
        bundle=bundle,
        network=network,
        folder=job.model_dir,
        overrides=parameters.overrides,
        provenance=Provenance(
            training_job=job.name,
            manifest_name=job.manifest_file.name,
            manifest_sha256=manifest_digest,
            datastore_id=manifest.datastore_id,
            cases={"train": len(splits.training), "validation": len(splits.validation)},
            bundle_sha256=bundle.digest(),
            hyperparameters=parameters.as_strings(),
            seed=configuration.seed,
            steps=loop.last_step,
            step_of_weights=loop.step_of_weights,
            device=str(ranks.device),
            world_size=ranks.world_size,
            train_patients=sorted({case.patient_key for case in splits.training}),
        ),
    )
    _LOG.info("done after %.1f s", time.monotonic() - started)


def _validates(configuration: TrainingConfiguration, splits: Splits) -> bool:
    """Whether there is something to validate on, and a metric that means something there."""
    if not splits.validation or not configuration.validates:
        why = "the bundle has no evaluator" if splits.validation else "the manifest has no validation case"
        _LOG.warning("nothing is validated (%s): the last weights will be the model's", why)
        return False
    classes = {case.class_name for case in splits.validation}
    if configuration.bundle.task is Task.CLASSIFICATION and len(classes) == 1:
        # There is no area under a ROC curve of one class.
        names = [name for name in configuration.metric_names if "auc" not in name.lower()]
        if "auc" in str(configuration.key_metric_name).lower() and names:
            _LOG.warning("validation cases are all of class %s: %s decides", *classes, names[0])
            configuration.use_metric(names[0])
    return True


def _sections(splits: Splits, validates: bool) -> list[tuple[Section, Sequence[Case]]]:
    found: list[tuple[Section, Sequence[Case]]] = [("train", splits.training)]
    return [*found, ("validate", splits.validation)] if validates else found


def _source(
    configuration: TrainingConfiguration,
    section: Section,
    cases: Sequence[Case],
    reader: CaseReader,
    *,
    cache: ItemCache | None,
    parameters: Hyperparameters,
) -> CaseSource:
    chain = configuration.preprocessing(section)
    return CaseSource(
        cases,
        reader,
        preparation=split_transform(chain, fingerprint=configuration.preparation_fingerprint(section)),
        cache=cache,
        level=CaseLevels(reader, chain) if parameters.resolution == "auto" else 0,
        # Never asked: a rank that stopped in waiting for data would leave the others waiting for it. The wish
        # is granted after the step.
        stop=StopRequest(),
    )


def _validation_loader(source: CaseSource, ranks: Ranks) -> ValidationLoader:
    # A rank without a case could not take part when the ranks put their metrics together. That every rank
    # validates everything changes no mean.
    if len(source) < ranks.world_size:
        return ValidationLoader(source, world_size=1, rank=0)
    return ValidationLoader(source, world_size=ranks.world_size, rank=ranks.rank)


def _cache(parameters: Hyperparameters) -> ItemCache | None:
    folder = parameters.cache_folder or Path(tempfile.gettempdir()) / "prepared-cases"
    if parameters.cache_gib is not None:
        limit = int(parameters.cache_gib * _GIB)
    else:
        existing = next(one for one in (folder, *folder.parents) if one.exists())
        # What is kept already, by another rank or an earlier training, took of the free space and counts.
        room = shutil.disk_usage(existing).free + bytes_in(folder)
        limit = int(room * _SHARE_OF_FREE_SPACE)
    return ItemCache(folder, limit_bytes=limit) if limit else None


def _workers(processes_per_host: int) -> int:
    """Two at least: one prepares what is needed next while the other reads ahead."""
    return max(2, min(_MOST_WORKERS, (os.cpu_count() or 1) // processes_per_host))


def _set_determinism(seed: int, *, strict: bool) -> None:
    set_determinism(seed)
    torch.use_deterministic_algorithms(strict)
    if strict:
        # cuBLAS is deterministic with a workspace of fixed size only (CUDA documentation, "Reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _fingerprint(
    manifest_digest: str,
    configuration: TrainingConfiguration,
    parameters: Hyperparameters,
    world_size: int,
) -> str:
    """What a checkpoint must agree with to be continued: anything else gives another training."""
    parts = {
        "manifest": manifest_digest,
        "bundle": [configuration.bundle.name, configuration.bundle.digest()],
        "overrides": parameters.overrides,
        "steps": configuration.max_steps,
        "seed": configuration.seed,
        # How many ranks and micro-batches share a step may change: its items do not.
        "items": configuration.batch_size * world_size * parameters.accumulate,
        "amp": parameters.amp,
        "resolution": parameters.resolution,
        "rhythm": [parameters.validate_every, parameters.patience],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _s3() -> Any:
    import boto3

    return boto3.client("s3")
