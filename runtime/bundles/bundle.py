"""A MONAI bundle, loaded once and kept warm: configuration in, a function from image to labels out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer
from monai.transforms import Compose

from runtime.bundles.files import BundleFiles, read_bundle_files
from runtime.bundles.foreground_inversion import invert_foreground_only
from runtime.bundles.segment_terms import SegmentTerm, segment_terms
from runtime.errors import BundleError, InferenceError, UnsuitablePredictionError
from runtime.results.answer import ModelIdentity

_LOG = logging.getLogger(__name__)

_LOADING = frozenset({"LoadImage", "LoadImaged", "EnsureChannelFirst", "EnsureChannelFirstd"})
"""Steps that read files: a volume arrives in memory and channel-first."""

_SAVING = frozenset({"SaveImage", "SaveImaged"})
"""Steps that write files: results leave through the segmentation writer."""

_PREDICTION = "pred"
"""Key under which MONAI's evaluators put the network's output (monai.utils.CommonKeys.PRED)."""

Phase = Callable[[str], AbstractContextManager[None]]
"""Times the named phase while its context is open."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The warm model with everything that its configuration says about using it."""

    files: BundleFiles
    terms: Mapping[str, SegmentTerm]
    """Coded terms by channel name, for every channel but background."""

    device: torch.device
    network: torch.nn.Module
    preprocessing: Compose
    inferer: Inferer
    postprocessing: Compose
    image_key: str
    mixed_precision: bool

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(name=self.files.name, version=self.files.version, sha256=self.files.sha256)

    @torch.no_grad()
    def predict(self, image: MetaTensor, *, phase: Phase | None = None) -> torch.Tensor:
        """Segment one volume, step by step as MONAI's SupervisedEvaluator does.

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
        with timed("preprocess"):
            batch = list_data_collate([self.preprocessing({self.image_key: image})])
            inputs = batch[self.image_key].to(self.device)
        with timed("network"), self._autocast():
            batch[_PREDICTION] = self.inferer(inputs, self.network)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        # Thresholds and argmax would make background of NaN: "nothing found", where nothing was looked at.
        if not torch.isfinite(batch[_PREDICTION]).all():
            msg = f"{self.files.name}: the network's output holds values that are not finite"
            raise UnsuitablePredictionError(msg)
        with timed("postprocess"):
            (item,) = decollate_batch({self.image_key: inputs, _PREDICTION: batch[_PREDICTION]})
            prediction = self.postprocessing(item)[_PREDICTION]
            self._check_grid(prediction, grid, affine)
            return torch.as_tensor(prediction).cpu()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.mixed_precision and self.device.type == "cuda":
            return torch.autocast("cuda")
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
        Saying which file, key or component cannot be used.
    """
    files = read_bundle_files(root)
    terms = segment_terms([channel.name for channel in files.segment_channels])
    parser = _parser(files)
    for component in _components(parser.config, _LOADING | _SAVING):
        component["_disabled_"] = True
    device = torch.device(_content(parser, files, "device", default=_default_device))
    network = _network(parser, files, device)
    preprocessing = _compose(parser, files, "preprocessing")
    postprocessing = _compose(parser, files, "postprocessing")
    return Bundle(
        files=files,
        terms=terms,
        device=device,
        network=network,
        preprocessing=preprocessing,
        inferer=_content(parser, files, "inferer"),
        postprocessing=invert_foreground_only(postprocessing, key=_PREDICTION),
        image_key=_image_key(parser, files),
        mixed_precision=bool(parser.get("evaluator", {}).get("amp", False)),
    )


def warm_up(bundle: Bundle) -> None:
    """Run the whole bundle twice on a small made-up volume.

    The first two passes of a TorchScript network are slower than the rest (its profiling executor optimises
    then), and a bundle that cannot serve is better refused here than at the first patient.

    Raises
    ------
    BundleError
        When the bundle's own steps fail, or do not return to the source's grid.
    """
    generator = torch.Generator().manual_seed(0)
    volume = torch.randint(-1000, 1000, (1, 64, 64, 32), generator=generator).to(torch.float32)
    affine = torch.diag(torch.tensor([-1.5, -1.5, 3.0, 1.0], dtype=torch.float64))
    for _ in range(2):
        try:
            bundle.predict(MetaTensor(volume.clone(), affine=affine))
        except InferenceError as error:
            raise BundleError(str(error)) from error
        except Exception as error:
            msg = (
                f"{bundle.files.inference_config}: fails on a made-up volume: {type(error).__name__}: {error}"
            )
            raise BundleError(msg) from error


def _untimed(name: str) -> AbstractContextManager[None]:
    return nullcontext()


def _parser(files: BundleFiles) -> ConfigParser:
    parser = ConfigParser()
    try:
        parser.read_config(str(files.inference_config))
        parser.read_meta(str(files.metadata_config))
    except Exception as error:
        raise BundleError(f"{files.inference_config}: cannot be read: {error}") from error
    parser["bundle_root"] = str(files.root)
    return parser


def _components(config: Any, names: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Find the components of a raw configuration whose class has one of the names."""
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and target.rpartition(".")[2] in names:
            yield config
        for value in config.values():
            yield from _components(value, names)
    elif isinstance(config, list):
        for value in config:
            yield from _components(value, names)


_REQUIRED = object()


def _content(parser: ConfigParser, files: BundleFiles, key: str, *, default: Any = _REQUIRED) -> Any:
    if key not in parser.config:
        if default is _REQUIRED:
            raise BundleError(f"{files.inference_config}: {key} is missing")
        return default()
    try:
        return parser.get_parsed_content(key)
    except Exception as error:
        msg = f"{files.inference_config}: {key} cannot be built: {type(error).__name__}: {error}"
        raise BundleError(msg) from error


def _compose(parser: ConfigParser, files: BundleFiles, key: str) -> Compose:
    value = _content(parser, files, key)
    if not isinstance(value, Compose):
        raise BundleError(f"{files.inference_config}: {key} must be a Compose, not {type(value).__name__}")
    return value


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _image_key(parser: ConfigParser, files: BundleFiles) -> str:
    """Find the key that preprocessing loads; a bundle that loads elsewhere calls it as its metadata does."""
    found = {
        key
        for component in _components(parser.config.get("preprocessing"), _LOADING)
        for key in _key_names(parser, component.get("keys"))
    }
    if len(found) > 1:
        msg = f"{files.inference_config}: preprocessing loads {sorted(found)}; a request gives one volume"
        raise BundleError(msg)
    return str(found.pop()) if found else files.input_name


def _key_names(parser: ConfigParser, keys: Any) -> list[str]:
    if isinstance(keys, str) and keys.startswith("@"):
        keys = parser.get_parsed_content(keys[1:])
    return [keys] if isinstance(keys, str) else list(keys or ())


def _network(parser: ConfigParser, files: BundleFiles, device: torch.device) -> torch.nn.Module:
    if files.is_torchscript:
        try:
            # torch does not annotate this function; mypy wants to be told what it gives.
            load: Callable[..., torch.nn.Module] = torch.jit.load
            network = load(str(files.weights), map_location=device)
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{files.weights}: is not a TorchScript file") from error
    else:
        network = cast(torch.nn.Module, _content(parser, files, "network_def"))
        _load_weights(network, files)
    return network.to(device).eval()


def _load_weights(network: torch.nn.Module, files: BundleFiles) -> None:
    """Load ``model.pt``, a state dictionary or a checkpoint that holds one under ``model``."""
    try:
        checkpoint = torch.load(files.weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BundleError(f"{files.weights}: is not a file of weights: {type(error).__name__}") from error
    state = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else checkpoint
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BundleError(f"{files.weights}: does not fit network_def: {error}") from error
