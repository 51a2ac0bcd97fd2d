"""Object stores as obstore opens them, and what their failures mean."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from ingest_svc.places import Place
from meshkit.errors import Unavailable, map_exceptions

if TYPE_CHECKING:
    # obstore has its types in stubs alone.
    from obstore.store import ClientConfig, RetryConfig, S3Config

logger = logging.getLogger(__name__)

Store = AzureStore | GCSStore | S3Store

_MAX_RETRIES = 3
_RETRY_BACKOFF = timedelta(milliseconds=100)
# A request may last as long as its bytes move; this many times `timeout_s` in all.
_MAX_TIMEOUTS = 10


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Seconds without an answer after which a store is away; where S3 is, "" for Amazon's own, and its region."""

    timeout_s: float
    s3_endpoint_url: str = ""
    s3_region: str = ""


def open_store(place: Place, options: StoreOptions) -> Store:
    """The place's bucket, reached by the credentials of this process's environment; nothing to close.

    Raises ValueError where something is missing to open it.
    """
    timeout = timedelta(seconds=options.timeout_s)
    client: ClientConfig = {
        "connect_timeout": timeout,
        "read_timeout": timeout,
        "timeout": timeout * _MAX_TIMEOUTS,
        "allow_http": options.s3_endpoint_url.startswith("http://"),
    }
    retry: RetryConfig = {
        "max_retries": _MAX_RETRIES,
        "retry_timeout": timeout,
        "backoff": {"init_backoff": _RETRY_BACKOFF},
    }
    try:
        if place.scheme == "gs":
            return GCSStore(place.bucket, client_options=client, retry_config=retry)
        if place.scheme == "az":
            return AzureStore(place.bucket, client_options=client, retry_config=retry)
        return S3Store(place.bucket, config=_s3_config(options), client_options=client, retry_config=retry)
    except BaseError as error:
        raise ValueError(f"{place.url}: {first_line(error)}") from error


def _s3_config(options: StoreOptions) -> "S3Config":
    config: S3Config = {}
    if options.s3_endpoint_url:
        config["endpoint"] = options.s3_endpoint_url
    if options.s3_region:
        config["region"] = options.s3_region
    return config


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise STORE_UNAVAILABLE where the store fails; FileNotFoundError, for what is not there, passes."""
    with map_exceptions({BaseError: _unavailable}):
        yield


def _unavailable(error: Exception) -> Unavailable:
    logger.warning("an object store fails: %s", first_line(error))
    return Unavailable("STORE_UNAVAILABLE", "an object store does not answer, or refuses this mesh")


def first_line(error: Exception) -> str:
    """What an error of obstore says, without its debugging details."""
    return str(error).partition("\n")[0]
