"""What a stack has to know of SageMaker's instance families.

Families are listed, not guessed from their letters; a test holds the lists against SageMaker's API model, so
that a new family is classified before anybody can name it. Source:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ (instance store, accelerators).
"""

from __future__ import annotations

WITH_LOCAL_STORAGE = frozenset(
    [
        "c5d",
        "c6gd",
        "dl1",
        "g4dn",
        "g5",
        "g6",
        "g6e",
        "g7",
        "g7e",
        "m5d",
        "m6gd",
        "p3dn",
        "p4d",
        "p4de",
        "p5",
        "p5e",
        "p5en",
        "p6-b200",
        "p6-b300",
        "p6e-gb200",
        "r5d",
        "r6gd",
        "r7gd",
        "trn1",
        "trn1n",
        "trn2",
    ]
)

WITHOUT_LOCAL_STORAGE = frozenset(
    [
        "c4",
        "c5",
        "c5n",
        "c6g",
        "c6gn",
        "c6i",
        "c6in",
        "c7g",
        "c7i",
        "c7i-flex",
        "c8g",
        "c8i",
        "c8i-flex",
        "inf1",
        "inf2",
        "m4",
        "m5",
        "m6g",
        "m6i",
        "m7i",
        "m7i-flex",
        "m8g",
        "m8i",
        "m8i-flex",
        "p2",
        "p3",
        "r5",
        "r6g",
        "r6i",
        "r7i",
        "r8g",
        "r8i",
        "r8i-flex",
        "t2",
        "t3",
    ]
)

WITH_NVIDIA_GPU = frozenset(
    [
        "g4dn",
        "g5",
        "g6",
        "g6e",
        "g7",
        "g7e",
        "p2",
        "p3",
        "p3dn",
        "p4d",
        "p4de",
        "p5",
        "p5e",
        "p5en",
        "p6-b200",
        "p6-b300",
        "p6e-gb200",
    ]
)

CUDA_13_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""The endpoint machine image with NVIDIA driver 580, which CUDA 13 needs. SageMaker's default has an older
driver.
"""


BATCH_GPU_AMI = "al2-ami-sagemaker-batch-gpu-535"
"""The newest machine image for batch transform jobs (TransformAmiVersion of TransformResources). Its NVIDIA
driver 535 runs CUDA 12, not CUDA 13.
"""


def family(instance_type: str) -> str:
    """`g5` of `ml.g5.2xlarge`."""
    return instance_type.split(".")[1]


def has_local_storage(instance_type: str) -> bool:
    """Whether the machine has NVMe disks of its own, which its hardware encrypts.

    Training, processing and transform jobs on such machines must not name a volume key: "You can't request a
    VolumeKmsKeyId when using an instance type with local storage" (CreateTrainingJob). Nothing before the
    start of the job says so.
    """
    name = family(instance_type)
    if name in WITH_LOCAL_STORAGE:
        return True
    if name in WITHOUT_LOCAL_STORAGE:
        return False
    raise ValueError(f"{instance_type}: infra/instances.py does not say whether {name} has local storage")


def has_nvidia_gpu(instance_type: str) -> bool:
    """Whether containers on the machine need the host's NVIDIA driver."""
    return family(instance_type) in WITH_NVIDIA_GPU
