"""A MONAI bundle, loaded once and kept warm: configuration in, a function from image to result out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer, SimpleInferer, SliceInferer
from monai.transforms import Activationsd, AsDiscrete, AsDiscreted, Compose, Invertd, MapTransform
from pydicom.sr.coding import Code

from runtime.bundles.channel_masks import channel_masks
from runtime.bundles.checkpoint import load_torchscript, load_weights
from runtime.bundles.class_scores import ClassScore, class_scores
from runtime.bundles.configuration import LOADING, Configuration, reason
from runtime.bundles.evaluator import evaluator_options
from runtime.bundles.files import BundleFiles, OpenedBundle, open_bundle
from runtime.bundles.foreground_inversion import invert_foreground_only
from runtime.bundles.segment_terms import SegmentTerm, class_terms, segment_terms
from runtime.bundles.separable_inversion import invert_axis_by_axis
from runtime.bundles.task import Task
from runtime.errors import BundleError, InferenceError, UnsuitablePredictionError
from runtime.results.answer import ModelIdentity

_PREDICTION = "pred"
_LABEL = "label"
"""Keys of the network's output and of the truth in MONAI's data dictionaries (monai.utils.CommonKeys)."""

Phase = Callable[[str], AbstractContextManager[None]]
"""Times the named phase while its context is open."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The warm model with everything that its configuration says about using it."""

    files: BundleFiles
    terms: Mapping[str, SegmentTerm]
    """Coded terms by channel name, for every channel but background; empty for a classification."""

    class_terms: Mapping[str, Code] = field(default_factory=dict)
    """Coded concepts of a classification's classes, for those that have one."""

    device: torch.device
    network: torch.nn.Module
    preprocessing: Compose
    inferer: Inferer
    postprocessing: Compose
    image_key: str
    mixed_precision: bool
    autocast: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name=self.files.name, version=self.files.version, sha256=self.files.sha256)

    @property
    def task(self) -> Task:
        return self.files.metadata.task

    def predict(self, image: MetaTensor, *, phase: Phase | None = None) -> torch.Tensor:
        """Segment one volume.

        Parameters
        ----------
        image
            (1, columns, rows, slices) with an affine in RAS mm.
        phase
            Called with ``preprocess``, ``network`` and ``postprocess`` around the work of each.

        Returns
        -------
        torch.Tensor
            (channels, columns, rows, slices) on the CPU and on the grid of ``image``: one channel of labels,
            or one mask for each entry of the bundle's ``channel_def``.

        Raises
        ------
        UnsuitablePredictionError
            When the network's output is not finite, or the bundle's postprocessing does not come back to the
            grid of ``image``.
        """
        timed = phase or _untimed
        grid, affine = tuple(image.shape[1:]), image.affine.clone()
        item = self._network_output(image, timed)
        with timed("postprocess"):
            prediction = self._postprocessed(item)
            self._check_grid(prediction, grid, affine)
            return torch.as_tensor(prediction).cpu()

    def classify(self, image: MetaTensor, *, phase: Phase | None = None) -> tuple[ClassScore, ...]:
        """Give each class of ``channel_def`` its probability for one volume; parameters as of `predict`.

        Raises
        ------
        UnsuitablePredictionError
            When the output is not finite, or no probabilities of these classes.
        """
        timed = phase or _untimed
        item = self._network_output(image, timed)
        with timed("postprocess"):
            vector = self._postprocessed(item)
            if not isinstance(vector, torch.Tensor):
                msg = f"postprocessing gives a {type(vector).__name__} instead of one value a class"
                raise UnsuitablePredictionError(f"{self.files.inference_config.name}: {msg}")
            return class_scores(vector, self.files.channels, self.class_terms)

    @torch.no_grad()
    def _network_output(self, image: MetaTensor, timed: Phase) -> Any:
        """Preprocess and run the network, step by step as MONAI's SupervisedEvaluator does."""
        with timed("preprocess"):
            batch = list_data_collate([self.preprocessing({self.image_key: image})])
            batch[self.image_key] = batch[self.image_key].to(self.device)
        with timed("network"), self._autocast():
            batch[_PREDICTION] = self.inferer(batch[self.image_key], self.network)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            # Thresholds and argmax would make background of NaN: "nothing found", where nothing was
            # looked at.
            if not all(bool(torch.isfinite(output).all()) for output in _tensors(batch[_PREDICTION])):
                msg = f"{self.files.name}: the network's output holds values that are not finite"
                raise UnsuitablePredictionError(msg)
        return batch

    @torch.no_grad()
    def _postprocessed(self, batch: Any) -> Any:
        (item,) = decollate_batch(batch)
        return self.postprocessing(item)[_PREDICTION]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.mixed_precision and self.device.type == "cuda":
            return torch.autocast("cuda", **self.autocast)
        return nullcontext()

    def _check_grid(self, prediction: object, grid: tuple[int, ...], affine: torch.Tensor) -> None:
        shape = tuple(getattr(prediction, "shape", ()))
        if shape[1:] != grid:
            msg = (
                f"{self.files.inference_config.name}: postprocessing gives shape {shape} for a volume of "
                f"{grid} (columns, rows, slices); it must end on the source's grid, for example with Invertd"
            )
            raise UnsuitablePredictionError(msg)
        if shape[0] not in (1, len(self.files.channels)):
            msg = (
                f"{self.files.inference_config.name}: postprocessing gives {shape[0]} channels; "
                f"wanted are 1 (labels) or {len(self.files.channels)} (one for each entry of channel_def)"
            )
            raise UnsuitablePredictionError(msg)
        # A shape alone does not tell a mirrored volume from a right one.
        if not isinstance(prediction, MetaTensor):
            msg = (
                f"{self.files.inference_config.name}: postprocessing gives a {type(prediction).__name__}, "
                "which does not say where it lies; it must keep the affine (MetaTensor)"
            )
            raise UnsuitablePredictionError(msg)
        if not torch.allclose(prediction.affine.cpu().double(), affine.cpu().double(), atol=1e-3):
            msg = f"{self.files.inference_config.name}: postprocessing moves the volume in the patient"
            raise UnsuitablePredictionError(msg)


def load_bundle(root: Path) -> Bundle:
    """Load a bundle directory: weights, transforms, inferer and terms.

    Raises
    ------
    BundleError
        Saying in one sentence which file, key or component cannot be used, or why such a model is not served.
    """
    opened = open_bundle(root)
    files, configuration = opened.files, opened.configuration
    options = evaluator_options(configuration)
    # What the evaluator runs counts; that it has the usual name is the custom and no rule.
    inferer = configuration.content("evaluator#inferer", default=None)
    if inferer is None:
        inferer = configuration.content("inferer", default=None) or SimpleInferer()
    if files.metadata.two_dimensional and not isinstance(inferer, SliceInferer):
        msg = (
            f"{files.metadata_config}: the network looks at two-dimensional images and the inferer "
            f"({type(inferer).__name__}) does not go through a volume's slices (SliceInferer)"
        )
        raise BundleError(msg)
    image_key = _image_key(configuration, files)
    device = torch.device(configuration.content("device", default=None) or _default_device())
    preprocessing = configuration.chain("preprocessing", "dataset#transform")
    of_evaluator = "evaluator#postprocessing"
    postprocessing = configuration.chain(of_evaluator if of_evaluator in configuration else "postprocessing")
    for chain in (preprocessing, postprocessing):
        _work_without_labels(chain)
    if _inverts_probabilities(postprocessing):
        invert_axis_by_axis(preprocessing)
    is_segmentation = files.metadata.task is Task.SEGMENTATION
    if is_segmentation:
        postprocessing = invert_foreground_only(postprocessing, key=_PREDICTION)
    else:
        _leave_decision_open(postprocessing)
    return Bundle(
        files=files,
        terms=segment_terms([one.name for one in files.segment_channels]) if is_segmentation else {},
        class_terms={} if is_segmentation else class_terms([one.name for one in files.channels]),
        device=device,
        network=_network(opened, device),
        preprocessing=preprocessing,
        inferer=inferer,
        postprocessing=postprocessing,
        image_key=image_key,
        mixed_precision=options.mixed_precision,
        autocast=options.autocast,
    )


def warm_up(bundle: Bundle) -> None:
    """Run the whole bundle twice on a small made-up volume.

    The first two passes of a TorchScript network are slower than the rest (its profiling executor optimises
    then), and a bundle that cannot serve is better refused here than at the first patient.

    Raises
    ------
    BundleError
        When the bundle's own steps fail, do not return to the source's grid, or give values that are neither
        masks nor probabilities of what ``channel_def`` names.
    """
    generator = torch.Generator().manual_seed(0)
    volume = torch.randint(-1000, 1000, (1, 64, 64, 32), generator=generator).to(torch.float32)
    affine = torch.diag(torch.tensor([-1.5, -1.5, 3.0, 1.0], dtype=torch.float64))
    for _ in range(2):
        image = MetaTensor(volume.clone(), affine=affine)
        try:
            if bundle.task is Task.SEGMENTATION:
                channel_masks(bundle.predict(image), bundle.files.channels)
            else:
                bundle.classify(image)
        except InferenceError as error:
            raise BundleError(str(error)) from error
        except Exception as error:
            msg = f"{bundle.files.inference_config}: fails on a made-up volume: {reason(error)}"
            raise BundleError(msg) from error


def _untimed(name: str) -> AbstractContextManager[None]:
    return nullcontext()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """Every tensor of an output: some networks give several (deep supervision heads, auxiliary losses)."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _image_key(configuration: Configuration, files: BundleFiles) -> str:
    """Find the key that preprocessing loads; a bundle that loads elsewhere calls it as its metadata does."""
    place = "preprocessing" if "preprocessing" in configuration else "dataset#transform"
    if place not in configuration:
        raise BundleError(f"{configuration.file}: preprocessing is missing")
    found = {
        key
        for _, component in configuration.components(LOADING, under=place)
        for key in _key_names(configuration, component.get("keys"))
    } - {_LABEL}
    if len(found) > 1:
        msg = f"{configuration.file}: preprocessing loads {sorted(found)}; a request gives one volume"
        raise BundleError(msg)
    return found.pop() if found else files.metadata.input_name


def _key_names(configuration: Configuration, keys: Any) -> list[str]:
    if isinstance(keys, str) and keys.startswith("@"):
        keys = configuration.content(keys[1:])
    return [keys] if isinstance(keys, str) else [str(key) for key in keys or ()]


def _work_without_labels(chain: Compose) -> None:
    """Let steps skip the truth: some bundles write their inference for labelled data; requests have none."""
    for step in chain.flatten().transforms:
        if isinstance(step, MapTransform) and _LABEL in step.keys:
            step.allow_missing_keys = True


def _inverts_probabilities(postprocessing: Compose) -> bool:
    """Whether what is inverted are probabilities and not labels.

    Probabilities are never just on the threshold. Labels that are interpolated are, halfway between two
    voxels, and there the last bit decides.
    """
    kinds = [
        step
        for step in postprocessing.flatten().transforms
        if isinstance(step, Activationsd | AsDiscreted | Invertd)
    ]
    return len(kinds) > 1 and isinstance(kinds[0], Activationsd) and isinstance(kinds[1], Invertd)


def _leave_decision_open(chain: Compose) -> None:
    """Take out the steps that make a decision of probabilities: a report states the probabilities."""
    chain.transforms = tuple(
        step for step in chain.transforms if not isinstance(step, AsDiscrete | AsDiscreted)
    )
    for step in chain.transforms:
        if isinstance(step, Compose):
            _leave_decision_open(step)


def _network(opened: OpenedBundle, device: torch.device) -> torch.nn.Module:
    files, configuration = opened.files, opened.configuration
    if files.is_torchscript:
        network = load_torchscript(files.weights, device)
    else:
        key = "network_def" if "network_def" in configuration else "network"
        network = configuration.content(key)
        if not isinstance(network, torch.nn.Module):
            msg = f"{files.inference_config}: {key} must be a network, not {type(network).__name__}"
            raise BundleError(msg)
        load_weights(network, files.weights, opened.checkpoint)
    network = network.to(device).eval()
    if device.type == "cuda" and any(parameter.dim() == 5 for parameter in network.parameters()):
        # cuDNN's convolutions on tensor cores want channels last; they follow the weights' layout.
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # stubs lack it
    return network
