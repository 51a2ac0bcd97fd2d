"""The tables in Milvus: their fields, their indexes, and how one is made."""

from collections.abc import Mapping

from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient

from retriever_svc.index import MAX_BYTES, IndexSpec, Language
from retriever_svc.milvus_rows import MAX_KEY_BYTES

Indexes = Mapping[str, tuple[str, str]]
REGISTRY_INDEXES: Indexes = {"unused": ("AUTOINDEX", "COSINE")}
CHUNK_INDEXES: Indexes = {
    "dense": ("AUTOINDEX", "COSINE"),
    "sparse": ("SPARSE_INVERTED_INDEX", "BM25"),
    "tenant": ("INVERTED", ""),
    "collection": ("INVERTED", ""),
    "document": ("INVERTED", ""),
    "ordinal": ("INVERTED", ""),
}


def make_table(
    address: str, token: str, table: str, schema: CollectionSchema, indexes: Indexes, timeout: float
) -> None:
    """Make and load a table, blocking: the asynchronous client asks Milvus Lite for what that does not have."""
    client = MilvusClient(address, token=token, timeout=timeout)
    try:
        client.create_collection(table, schema=schema, timeout=timeout)
        for field, (kind, metric) in indexes.items():
            params = client.prepare_index_params()
            params.add_index(field, index_type=kind, **({"metric_type": metric} if metric else {}))
            client.create_index(table, params, sync=False, timeout=timeout)
        client.load_collection(table, timeout=timeout)
    finally:
        client.close()


def registry_schema() -> CollectionSchema:
    """The table of the indexes' states."""
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field("spec", DataType.JSON)
    schema.add_field("version", DataType.INT64)
    schema.add_field("gaps", DataType.BOOL)
    # Milvus has no table without vectors.
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
    return schema


def chunks_schema(spec: IndexSpec) -> CollectionSchema:
    """The table of the chunks under these settings."""
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_BYTES)
    schema.add_field("tenant", DataType.VARCHAR, max_length=64, is_partition_key=True)
    schema.add_field("collection", DataType.VARCHAR, max_length=64)
    schema.add_field("document", DataType.VARCHAR, max_length=128)
    schema.add_field("ordinal", DataType.INT64)
    schema.add_field("page", DataType.INT64)
    for name in ("title", "uri", "content_hash"):
        schema.add_field(name, DataType.VARCHAR, max_length=MAX_BYTES[name])
    # Milvus Lite leaves out the stemmer; its tokenizer for Chinese needs a package no longer kept, so that comes cut.
    stemmer = [{"type": "stemmer", "language": "english"}] if spec.language is Language.ENGLISH else []
    params = {"tokenizer": "standard", "filter": ["lowercase", *stemmer]}
    analyzer = {"enable_analyzer": True, "analyzer_params": params}
    schema.add_field("text", DataType.VARCHAR, max_length=MAX_BYTES["text"])
    schema.add_field("words", DataType.VARCHAR, max_length=MAX_BYTES["text"], **analyzer)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("details", DataType.JSON)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=spec.dimension)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["words"], output_field_names=["sparse"]))
    return schema
