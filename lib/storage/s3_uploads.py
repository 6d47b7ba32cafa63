"""Unfinished multipart uploads: invisible in listings, but stored, and paid for, until aborted."""

from __future__ import annotations

from collections.abc import Callable

from lib.errors import MacroscopeError
from lib.storage.s3_client import aws_session, certificates_of, endpoint_of, region_of
from lib.storage.s3_errors import named_s3_error
from lib.storage.settings import StoreSettings


def abort_uploads(
    bucket: str,
    prefix: str,
    settings: StoreSettings,
    location: str,
    count: Callable[[str], None] = lambda kind: None,
    may: Callable[[], object] = lambda: None,
) -> int:
    """Abort every unfinished upload whose key starts with `prefix`; returns how many.

    Call it while holding the lock of the volumes concerned: another run's uploads look the same.
    obstore cannot list uploads, boto3 can.

    Parameters
    ----------
    count
        Called with the kind of each request: LIST, DELETE.
    may
        Called before each upload is aborted; raises where that is not allowed any more.
    """
    import botocore.config  # type: ignore[import-untyped]  # slow to import; rarely needed
    import botocore.exceptions  # type: ignore[import-untyped]

    style = settings.addressing_style
    endpoint = endpoint_of(settings)
    client = aws_session(settings).client(
        "s3",
        endpoint_url=endpoint,
        region_name=region_of(settings),
        verify=certificates_of(settings),
        config=botocore.config.Config(
            s3={"addressing_style": "path" if style == "auto" and endpoint else style}
        ),
    )
    try:
        aborted = 0
        for page in client.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, Prefix=prefix
        ):
            count("LIST")
            for upload in page.get("Uploads", ()):
                may()
                count("DELETE")
                client.abort_multipart_upload(
                    Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
                aborted += 1
        return aborted
    except botocore.exceptions.ClientError as error:
        raise _named(error, location) from error
    except botocore.exceptions.BotoCoreError as error:
        raise named_s3_error(error, location, "clear up") from error
    finally:
        client.close()


def _named(error: Exception, location: str) -> MacroscopeError:
    answer = getattr(error, "response", {})
    code = answer.get("Error", {}).get("Code", "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return named_s3_error(
        Exception(f"status code: {status} <Code>{code}</Code>"), location, "clear up"
    )
