"""Whether what arrives is still what the models were made for: modality, slices, spacing, segment volumes.

The containers emit these figures (`runtime/metrics.py`) as CloudWatch's embedded metric format, in their log.
A model knows no bounds of its own, so what is unusual is learnt: the alarms compare with the band in which
the figure has kept in the weeks before. What a rule excludes needs no learning.
"""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.environment import Environment
from infra.observability.dashboard import Graph, Row
from infra.observability.metrics import Metric, Search

NAMESPACE = "MONAI/Inference"
_SOURCE = "runtime/metrics.py"

_OF_ENDPOINT = ("Endpoint",)
_OF_MODEL = ("Endpoint", "Model")
_OF_ERROR = ("Endpoint", "ErrorType")
_OF_INPUT = ("Endpoint", "Modality")
_OF_SEGMENT = ("Endpoint", "Segment")

_STAGES = (
    "Queue",
    "Open",
    "Lookup",
    "Select",
    "Fetch",
    "Decode",
    "Preprocess",
    "Network",
    "Postprocess",
    "Store",
    "Write",
)


def _own(name: str, dimensions: tuple[str, ...]) -> Metric:
    return Metric(namespace=NAMESPACE, name=name, dimensions=dimensions, source=_SOURCE)


_VOLUMES = _own("Volumes", _OF_INPUT)
_SLICES = _own("Slices", _OF_INPUT)
_SPACINGS = {
    "columns": _own("ColumnSpacingMillimetres", _OF_INPUT),
    "rows": _own("RowSpacingMillimetres", _OF_INPUT),
    "slices": _own("SliceSpacingMillimetres", _OF_INPUT),
}
_SEGMENT_VOLUME = _own("SegmentVolumeMillilitres", _OF_SEGMENT)
_REQUESTS = _own("Requests", _OF_ENDPOINT)
_STORED = _own("StoredResults", _OF_ENDPOINT)
_FAILED = _own("Errors", _OF_ENDPOINT)
_ERRORS = _own("Errors", _OF_ERROR)
_STAGE_SECONDS = {stage: _own(f"{stage}Seconds", _OF_ENDPOINT) for stage in _STAGES}
_SECONDS = (_own("RequestSeconds", _OF_ENDPOINT), _own("TotalSeconds", _OF_ENDPOINT))
_OF_MANY = tuple(
    _own(metric.name, _OF_MODEL)
    for metric in (_REQUESTS, _FAILED, _STORED, *_SECONDS, *_STAGE_SECONDS.values())
)
"""What multi-model endpoints emit for each of their models besides."""

RUNTIME_METRICS: tuple[Metric, ...] = (
    _REQUESTS,
    _FAILED,
    _ERRORS,
    _STORED,
    *_SECONDS,
    *_STAGE_SECONDS.values(),
    *_OF_MANY,
    _VOLUMES,
    _SLICES,
    *_SPACINGS.values(),
    _SEGMENT_VOLUME,
)
"""All that the containers emit; a test compares with them."""

_HOUR = 3600
_BAND = 4
"""Standard deviations around what was usual. Three would be crossed by chance every few weeks."""

_WATCHED = {"SliceSpacing": _SPACINGS["slices"], "ColumnSpacing": _SPACINGS["columns"], "Slices": _SLICES}


def runtime_rows(environment: Environment) -> list[Row]:
    """Graphs of what the containers measure; none where nothing is served."""
    if not environment.inference.endpoints:
        return []

    def graph(title: str, *metrics: Metric, statistic: str, unit: str = "") -> Graph:
        lines: tuple[Search, ...] = tuple(metric.everywhere(statistic=statistic) for metric in metrics)
        return Graph(title=title, lines=lines, unit=unit, period_seconds=_HOUR)

    return [
        Row(
            title="Requests, as the containers see them",
            text="Where the seconds of a request go, and what is refused.",
            graphs=(
                graph("Seconds by stage", *_STAGE_SECONDS.values(), statistic="Average", unit="s"),
                graph("Seconds of a request", *_SECONDS, statistic="p90", unit="s"),
                graph("Errors by type", _ERRORS, statistic="Sum"),
                graph("Requests, and results that were there already", _REQUESTS, _STORED, statistic="Sum"),
            ),
        ),
        Row(
            title="Inputs and results",
            text="A scanner with a new protocol shows here first: other spacing, fewer slices, another "
            "modality. So does a model that begins to find more or less.",
            graphs=(
                graph("Volumes by modality", _VOLUMES, statistic="Sum"),
                graph("Slices", _SLICES, statistic="Average"),
                graph("Spacing", *_SPACINGS.values(), statistic="Average", unit="mm"),
                graph("Volume of segments", _SEGMENT_VOLUME, statistic="Average", unit="ml"),
            ),
        ),
    ]


class DriftAlarms(Construct):
    """One alarm for each endpoint that rules feed, on modalities that none of them names; and for each
    modality, on figures that leave their band.

    Endpoints that only people call are drawn and not watched: people know what they send.
    """

    def __init__(self, scope: Construct, id: str, *, environment: Environment, topic: sns.ITopic) -> None:
        super().__init__(scope, id)
        self._topic = topic
        self.alarms: list[cloudwatch.CfnAlarm] = []
        # The containers know their endpoint by its name in the environment file: what was usual before it
        # moved to another machine still is.
        names = {endpoint.name: endpoint.logical_name for endpoint in environment.inference.endpoints}
        for endpoint, modalities in _expected(environment):
            logical_name = names[endpoint]
            self.alarms.append(self._other_modality(logical_name, endpoint, modalities))
            self.alarms += [
                self._leaves_band(f"{logical_name}{modality}{id}", metric, endpoint, modality)
                for modality in modalities
                for id, metric in _WATCHED.items()
            ]

    def _other_modality(self, id: str, endpoint: str, modalities: list[str]) -> cloudwatch.CfnAlarm:
        """By a query of Metrics Insights: the modalities that must not come cannot be listed.

        See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-metrics-insights-querylanguage.html
        """
        others = " AND ".join(f"Modality != '{modality}'" for modality in modalities)
        query = " ".join(
            (
                f"SELECT SUM({_VOLUMES.name})",
                f'FROM SCHEMA("{NAMESPACE}", {", ".join(_VOLUMES.dimensions)})',
                f"WHERE Endpoint = '{endpoint}' AND {others}",
            )
        )
        return cloudwatch.CfnAlarm(
            self,
            f"{id}OtherModality",
            alarm_description=f"Endpoint {endpoint} segmented volumes of a modality that no rule sends it "
            f"(rules: {', '.join(modalities)}). Find out who sends them: the model was not made for them, "
            "and its results on them are not to be used.",
            metrics=[
                cloudwatch.CfnAlarm.MetricDataQueryProperty(
                    id="others",
                    expression=query,
                    period=300,
                    return_data=True,
                )
            ],
            comparison_operator="GreaterThanThreshold",
            threshold=0,
            evaluation_periods=1,
            treat_missing_data="notBreaching",
            alarm_actions=[self._topic.topic_arn],
        )

    def _leaves_band(self, id: str, metric: Metric, endpoint: str, modality: str) -> cloudwatch.CfnAlarm:
        """See https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Anomaly_Detection.html"""
        values = {"Endpoint": endpoint, "Modality": modality}
        return cloudwatch.CfnAlarm(
            self,
            id,
            alarm_description=f"{metric.name} of {modality} volumes at endpoint {endpoint} has been unlike "
            "the weeks before for three hours. Look at the series that arrived: a new protocol or scanner, "
            "or series that a rule should not send. Compare the model's quality on them before trusting it.",
            metrics=[
                cloudwatch.CfnAlarm.MetricDataQueryProperty(
                    id="figure",
                    metric_stat=cloudwatch.CfnAlarm.MetricStatProperty(
                        metric=cloudwatch.CfnAlarm.MetricProperty(
                            namespace=metric.namespace,
                            metric_name=metric.name,
                            dimensions=[
                                cloudwatch.CfnAlarm.DimensionProperty(name=name, value=values[name])
                                for name in metric.dimensions
                            ],
                        ),
                        period=_HOUR,
                        stat="Average",
                    ),
                    return_data=True,
                ),
                cloudwatch.CfnAlarm.MetricDataQueryProperty(
                    id="band",
                    expression=f"ANOMALY_DETECTION_BAND(figure, {_BAND})",
                    return_data=True,
                ),
            ],
            threshold_metric_id="band",
            comparison_operator="LessThanLowerOrGreaterThanUpperThreshold",
            evaluation_periods=3,
            datapoints_to_alarm=3,
            treat_missing_data="notBreaching",
            alarm_actions=[self._topic.topic_arn],
        )


def _expected(environment: Environment) -> Iterator[tuple[str, list[str]]]:
    """Endpoints that rules name, each with the modalities of its rules."""
    endpoints = dict.fromkeys(rule.endpoint for rule in environment.inference.rules)
    for endpoint in endpoints:
        yield (
            endpoint,
            sorted(
                {
                    modality
                    for rule in environment.inference.rules
                    if rule.endpoint == endpoint
                    for modality in rule.modality
                }
            ),
        )
