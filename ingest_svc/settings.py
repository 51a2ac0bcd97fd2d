"""Every knob of the ingest service."""

import re
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from ingest_svc.places import Place, parse_place
from meshkit.settings import ChannelSettings, ServerSettings

_MIB = 1024 * 1024
_DAY_S = 24 * 3600


class Settings(ServerSettings):
    """Read from RAGMESH_INGEST_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_INGEST_")

    listen: str = Field("127.0.0.1:50055", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9105", description="Address to serve Prometheus metrics on; empty for none.")
    default_deadline_s: PositiveFloat = Field(300.0, description="Seconds for a call that brings no deadline.")

    embedder_target: str = Field("127.0.0.1:50054", description="Address of embedder_svc, any gRPC name.")
    retriever_target: str = Field("127.0.0.1:50052", description="Address of retriever_svc, any gRPC name.")
    channel: ChannelSettings = Field(ChannelSettings(), description="Knobs of the channels to them.")

    redis_url: str = Field("redis://127.0.0.1:6390/0", description="URL of the Redis that keeps records and work.")
    redis_timeout_s: PositiveFloat = Field(5.0, gt=1, description="Seconds that an operation of Redis may take.")
    redis_max_connections: PositiveInt = Field(64, description="Connections to Redis.")
    object_store_url: str = Field(
        "file:data/objects",
        description="Where documents' bytes are kept: file: with a path, or s3://, gs:// or az:// with a bucket (of "
        "Azure a container) and a prefix.",
    )
    object_store_timeout_s: PositiveFloat = Field(
        30.0, description="Seconds without an answer after which an object store is away."
    )
    object_store_part_bytes: PositiveInt = Field(
        4 * _MIB, description="Bytes of an upload that wait in memory before they go to an object store."
    )
    s3_endpoint_url: str = Field(
        "", pattern="^(https?://.+)?$", description="URL of the S3 to use, of MinIO for instance; empty for Amazon's."
    )
    s3_region: str = Field("", description="Region of that S3; empty for what AWS_REGION says, or us-east-1.")
    source_roots: str = Field(
        "",
        description="Places that jobs may read, with what is below them: folders, or s3://, gs:// or az:// with a "
        "bucket and a prefix; parted by `:`, empty for none.",
    )

    max_document_bytes: PositiveInt = Field(64 * _MIB, description="Bytes of the largest document taken.")
    max_metadata_bytes: PositiveInt = Field(16 * 1024, description="Bytes of a document's metadata as JSON.")
    max_uploads: PositiveInt = Field(32, description="Uploads received at once; more are refused.")
    upload_ttl_s: PositiveFloat = Field(
        _DAY_S, description="Seconds that a broken upload is kept, and one by URL that no job took in."
    )
    upload_url_ttl_s: PositiveFloat = Field(900.0, description="Seconds for which a URL to upload to is good.")
    upload_expiry_interval_s: PositiveFloat = Field(
        600.0, description="Seconds between two looks for uploads that have expired."
    )
    progress_bytes: PositiveInt = Field(_MIB, description="Bytes received between two progress messages.")
    watch_poll_s: PositiveFloat = Field(
        2.0, description="Seconds without news after which a watcher looks at the record."
    )
    watch_buffer: PositiveInt = Field(256, description="Progress messages that wait for a slow watcher.")

    document_workers: PositiveInt = Field(
        2,
        description="Documents of jobs read at once, and as many uploads.",
    )
    vector_workers: PositiveInt = Field(
        16,
        description="Documents encoded at once, those that were kept and those that go straight on, their chunks in "
        "batches by tenant; a quarter is left to other tenants than the busiest.",
    )
    upload_workers: PositiveInt = Field(
        1, description="Uploads read at once, and as many encoded, beside those workers: they wait for no job."
    )
    job_workers: PositiveInt = Field(16, description="Jobs run at once.")
    max_running_jobs: PositiveInt = Field(2, description="Jobs of a tenant run at once.")
    max_open_jobs: PositiveInt = Field(8, description="Jobs of a tenant that have not ended; more are refused.")
    max_job_files: PositiveInt = Field(100_000, description="Files in a job's source.")
    max_job_documents_under_way: PositiveInt = Field(
        32,
        description="Documents of one job that are queued or worked on at once; those kept for their vectors are not "
        "counted.",
    )
    cancel_poll_s: PositiveFloat = Field(
        0.4, description="Seconds between two looks of the work on documents at their job's state."
    )
    job_poll_s: PositiveFloat = Field(1.0, description="Seconds between two looks of a job at its state.")
    job_retention_s: PositiveInt = Field(30 * _DAY_S, description="Seconds that a job is kept after its end.")
    request_id_ttl_s: PositiveInt = Field(_DAY_S, description="Seconds that a request_id is remembered.")

    claim_idle_s: PositiveFloat = Field(
        30.0, description="Seconds without heartbeat after which another worker takes a document or a job."
    )
    heartbeat_s: PositiveFloat = Field(10.0, description="Seconds between a worker's heartbeats.")
    queue_block_s: PositiveFloat = Field(
        3.0, description="Seconds that a worker waits for work before it looks for work left behind."
    )
    retry_backoff_s: PositiveFloat = Field(0.5, description="Seconds before the first retry; doubles each time.")
    retry_backoff_max_s: PositiveFloat = Field(30.0, description="Most seconds before a retry.")
    retry_for_s: PositiveFloat = Field(
        _DAY_S, description="Seconds that a document is retried while a service is away."
    )
    max_attempts: PositiveInt = Field(5, description="Attempts of a document that fails unexpectedly.")
    attempt_timeout_s: PositiveFloat = Field(1800.0, description="Seconds that one attempt at a document may take.")
    lock_wait_s: PositiveFloat = Field(
        30.0, description="Seconds that a call waits for the work on a document or collection to stop."
    )

    parser_processes: PositiveInt = Field(
        3, description="Documents parsed at once: more than jobs read at once, so that uploads find one free."
    )
    parser_timeout_s: PositiveFloat = Field(60.0, description="Seconds that parsing a document may take.")
    parser_max_memory_bytes: PositiveInt = Field(
        1024 * _MIB, description="Bytes of address space of a parser's process."
    )
    parser_idle_memory_bytes: PositiveInt = Field(
        160 * _MIB, description="Bytes that a parser's process may hold between two documents; one of more is replaced."
    )
    ocr_languages: str = Field(
        "eng",
        pattern=r"^\w+(\+\w+)*$",
        description="Languages of scanned pages, as tesseract names them, joined by `+`; read where it is installed.",
    )
    max_text_bytes: PositiveInt = Field(16 * _MIB, description="Bytes of a document's text.")
    max_tokenize_bytes: PositiveInt = Field(_MIB, le=2 * _MIB, description="Bytes of one text to tokenise.")
    max_batch_tokens: PositiveInt = Field(8192, description="Tokens in a batch to the encoder.")
    max_batch_chunks: PositiveInt = Field(64, le=1024, description="Chunks in a batch to the encoder.")
    max_kept_bytes: PositiveInt = Field(
        64 * _MIB,
        description="Bytes of a document's chunks kept while it waits for vectors; else they are cut again.",
    )
    encoding_memory_bytes: PositiveInt = Field(
        128 * _MIB, description="Bytes of the chunks kept that are held at once while they are encoded."
    )
    max_import_bytes: PositiveInt = Field(
        256 * _MIB, description="Bytes on disk of the chunks and vectors of a document that was made elsewhere."
    )
    encoder_stream_s: PositiveFloat = Field(60.0, description="Seconds for which one stream to the encoder is used.")

    @field_validator("object_store_url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "file":
            parse_place(url)
        elif parts.netloc not in ("", "localhost") or not parts.path:
            raise ValueError("must be file: with a path")
        return url

    @field_validator("source_roots")
    @classmethod
    def _are_places(cls, roots: str) -> str:
        for root in _parted(roots):
            if "://" in root:
                parse_place(root)
        return roots

    @model_validator(mode="after")
    def _redis_answers_who_waits(self) -> Self:
        if self.queue_block_s >= self.redis_timeout_s:
            raise ValueError("queue_block_s must be less than redis_timeout_s")
        return self

    @model_validator(mode="after")
    def _sources_hold_no_documents_of_others(self) -> Self:
        store, folder = self.object_place, self.object_folder.resolve()
        if store is None:
            hold = any(folder.is_relative_to(root.resolve()) for root in self.allowed_roots)
        else:
            hold = any(root.contains(store) or store.contains(root) for root in self.allowed_places)
        if hold:
            raise ValueError("source_roots must not hold object_store_url, where the documents of all tenants are")
        return self

    @property
    def object_folder(self) -> Path:
        """The folder of object_store_url, where that is one."""
        return Path(unquote(urlsplit(self.object_store_url).path))

    @property
    def object_place(self) -> Place | None:
        """The place of object_store_url; None where it is a folder."""
        return None if self.object_store_url.startswith("file:") else parse_place(self.object_store_url)

    @property
    def allowed_roots(self) -> list[Path]:
        """The folders of source_roots."""
        return [Path(root) for root in _parted(self.source_roots) if "://" not in root]

    @property
    def allowed_places(self) -> list[Place]:
        """The places in object stores of source_roots."""
        return [parse_place(root) for root in _parted(self.source_roots) if "://" in root]


def _parted(roots: str) -> list[str]:
    """The roots; the colon of a URL parts nothing."""
    return [root for root in re.split(r":(?!//)", roots) if root]
