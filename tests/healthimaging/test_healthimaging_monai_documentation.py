"""What docs/connector.md says of MONAI runs as it stands there. Runs where MONAI is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("monai")

import torch
from cloud_archive import Archive
from connector_guide import code_blocks
from oblique_series import LUNG, ct_series
from pydicom.uid import generate_uid

from healthimaging import Case, Manifest, write_segmentation
from healthimaging.manifest import patient_key

pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),  # a reader of MONAI for GPUs
    pytest.mark.filterwarnings("ignore:tqdm is not installed:UserWarning"),
]


def test_the_code_for_monai_runs_as_it_stands(
    cloud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    archive = Archive.create(cloud)
    image = archive.image_set(ct_series(slices=6)[0])
    (volume,) = image.volumes()
    label = write_segmentation(
        source=image.datasets(pixels=False),
        masks=(volume.array > 1000)[None],
        segments=[LUNG],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=9,
        algorithm_name="a",
        algorithm_version="1",
    )
    case = Case(
        patient_key=patient_key(str(image.metadata.patient.text("PatientID"))),
        split="train",
        image=image.ref,
        label=archive.image_set([label]).ref,
    )
    manifest = Manifest(query="", datastore_id=archive.datastore_id, seed=1, cases=(case,))
    names: dict[str, Any] = {"references": [image.ref], "manifest": manifest, "folder": tmp_path}
    reading, labelled = (block for block in code_blocks() if "monai" in block)
    exec(reading, names)  # noqa: S102 - the guide's own code
    assert "torch.Size([1, 1, " in capfd.readouterr().out
    assert names["batch"]["image"].shape[0] == 1
    assert len(list(tmp_path.glob("*.pt"))) == 1
    exec(labelled, names)  # noqa: S102 - the guide's own code
    full, coarse = names["in_memory"][0], names["on_disk"][0]
    assert torch.equal(full["label"].bool(), full["image"] > 1000)
    # A label at a level is the label at the centres of the image's remaining pixels.
    assert coarse["image"].shape == coarse["label"].shape == (1, 16, 12, 6)
    mask = np.asarray(volume.array > 1000)[:, ::2, ::2]
    assert np.array_equal(np.asarray(coarse["label"])[0], mask.transpose(2, 1, 0))
