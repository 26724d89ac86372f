"""What Athena does with S3 and Glue, it does as the caller: the caller's policies must allow it.

Source: https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html,
https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html and
https://docs.aws.amazon.com/athena/latest/ug/querying-iceberg.html. Policies of buckets and keys are not
asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from local.athena import relations, views
from local.athena.dialect import QueryError
from local.athena.objects import Place
from local.service import Caller, Cloud, ServiceError

_VIA: dict[str, str | list[str]] = {"aws:CalledVia": ["athena.amazonaws.com"], "aws:ViaAWSService": "true"}


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """Of who started a statement."""

    cloud: Cloud
    caller: Caller

    @classmethod
    def of_request(cls, cloud: Cloud) -> Permissions:
        """Of the caller of the request in whose context this runs."""
        from ministack.core import iam_evaluator, responses

        caller = Caller(
            account_id=responses.get_account_id(),
            region=responses.get_region(),
            access_key_id=iam_evaluator._verified_key.get(),
            arn=iam_evaluator.caller_arn(),
        )
        return cls(cloud=cloud, caller=caller)

    def must_read(self, read: views.Read) -> None:
        """Raise `QueryError` unless the caller may read tables and views, and the objects of the tables."""
        for one in read:
            self._glue("glue:GetTable", one.database, one.table)
            if isinstance(one, relations.Relation) and one.location:
                self.must_read_below(Place.of(one.location).folder)

    def must_read_below(self, folder: Place) -> None:
        self._s3("s3:ListBucket", f"arn:aws:s3:::{folder.bucket}", prefix=folder.key)
        self._s3("s3:GetObject", f"arn:aws:s3:::{folder.bucket}/{folder.key}object")

    def must_write_below(self, folder: Place, *, delete: bool = False) -> None:
        self._s3("s3:PutObject", f"arn:aws:s3:::{folder.bucket}/{folder.key}object")
        if delete:
            self._s3("s3:DeleteObject", f"arn:aws:s3:::{folder.bucket}/{folder.key}object")

    def must_commit(self, database: str, table: str) -> None:
        """An Iceberg table's new metadata becomes its current one by UpdateTable."""
        self._glue("glue:UpdateTable", database, table)

    def must_keep_result(self, result: Place) -> None:
        """The caller needs to write what a query gives, and to know where the bucket is."""
        self._s3("s3:GetBucketLocation", f"arn:aws:s3:::{result.bucket}")
        self._s3("s3:PutObject", f"arn:aws:s3:::{result.bucket}/{result.key}")

    def _glue(self, action: str, database: str, table: str) -> None:
        place = f"arn:aws:glue:{self.caller.region}:{self.caller.account_id}"
        self._ask(
            action,
            [f"{place}:catalog", f"{place}:database/{database}", f"{place}:table/{database}/{table}"],
            word="HIVE_METASTORE_ERROR",
        )

    def _s3(self, action: str, resource: str, *, prefix: str | None = None) -> None:
        self._ask(action, [resource], word="PERMISSION_DENIED", prefix=prefix)

    def _ask(self, action: str, resources: list[str], *, word: str, prefix: str | None = None) -> None:
        context = _VIA if prefix is None else {**_VIA, "s3:prefix": prefix}
        try:
            self.cloud.authorize(caller=self.caller, action=action, resources=resources, context=context)
        except ServiceError as error:
            raise QueryError(f"{word}: Insufficient permissions: {error.message}") from error
