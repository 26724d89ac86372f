"""Environment files: what differs between `local`, `dev`, `staging` and `prod`, typed and checked before
anything is built.
"""

from infra.environment.arrival import RECEIVER_PORT, Arrival, Caller, Receiver
from infra.environment.delivery import Delivery, load_delivery
from infra.environment.endpoints import (
    AsynchronousEndpoint,
    BatchTransform,
    ComponentEndpoint,
    Endpoint,
    Inference,
    ModelComponent,
    MultiModelEndpoint,
    RealTimeEndpoint,
    Rule,
    ServerlessEndpoint,
)
from infra.environment.loading import FOLDER, Environment, load_environment
from infra.environment.names import pascal_case
from infra.environment.problems import EnvironmentFileError
from infra.environment.sections import (
    Aws,
    Catalog,
    HealthImagingRegion,
    Images,
    LocalCloud,
    Logs,
    Network,
    Notices,
    Persona,
    Protection,
    Studio,
    StudioUser,
)
from infra.environment.training import Task, Training

__all__ = [
    "FOLDER",
    "RECEIVER_PORT",
    "Arrival",
    "AsynchronousEndpoint",
    "Aws",
    "BatchTransform",
    "Caller",
    "Catalog",
    "ComponentEndpoint",
    "Delivery",
    "Endpoint",
    "Environment",
    "EnvironmentFileError",
    "HealthImagingRegion",
    "Images",
    "Inference",
    "LocalCloud",
    "Logs",
    "ModelComponent",
    "MultiModelEndpoint",
    "Network",
    "Notices",
    "Persona",
    "Protection",
    "RealTimeEndpoint",
    "Receiver",
    "Rule",
    "ServerlessEndpoint",
    "Studio",
    "StudioUser",
    "Task",
    "Training",
    "load_delivery",
    "load_environment",
    "pascal_case",
]
