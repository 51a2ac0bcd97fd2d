"""Collections and documents in Redis."""

from collections.abc import Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis

from ingest_svc.catalog import Collection, Document, Record, Request
from ingest_svc.redis_locks import shared_key, tenant_key
from ingest_svc.redis_queue import ENQUEUE, fields
from ingest_svc.work import WorkItem
from meshkit.errors import InvalidArgument, not_found
from meshkit.redis_store import store_errors

_Kept = TypeVar("_Kept", bound=Record)

# Each kind of record is a hash from id to JSON with a sorted set of the ids, all of score 0, to list them by.
DOCUMENT_WORK = shared_key("documents")
VECTOR_WORK = shared_key("vectors")

# KEYS: collections, documents, document ids, queue.
# ARGV: collection, id, generation to replace or '', record, the item's lane and tenant, then its fields.
_ACCEPT = f"""{ENQUEUE}
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local kept = redis.call('HGET', KEYS[2], ARGV[2])
local generation = kept and cjson.decode(kept)['generation'] or ''
if generation ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[3], 0, ARGV[2])
enqueue(KEYS[4], ARGV[5], ARGV[6], {{unpack(ARGV, 7)}})
return 1
"""
# KEYS: documents, queue. ARGV: id, generation, record, the item's lane and tenant, then its fields.
_HAND_OVER = f"""{ENQUEUE}
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept or cjson.decode(kept)['generation'] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
enqueue(KEYS[2], ARGV[4], ARGV[5], {{unpack(ARGV, 6)}})
return 1
"""
# KEYS: queue. ARGV: the item's lane and tenant, then its fields.
_QUEUE = f"""{ENQUEUE}
enqueue(KEYS[1], ARGV[1], ARGV[2], {{unpack(ARGV, 3)}})
"""
REPLACE = """
local function replace(records, id, field, value, record)
  local kept = redis.call('HGET', records, id)
  if not kept or tostring(cjson.decode(kept)[field]) ~= value then return 0 end
  redis.call('HSET', records, id, record)
  return 1
end
"""
# KEYS: records. ARGV: id, field, its value in the record kept, the new record.
_REPLACE = f"{REPLACE} return replace(KEYS[1], unpack(ARGV))"
# KEYS: documents, document ids. ARGV: id.
_REMOVE = """
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept or cjson.decode(kept)['generation'] ~= '' then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""


class RedisCatalog:
    """Records under keys that hold the tenant; needs no closing. See Catalog."""

    def __init__(self, redis: Redis, request_ttl_s: int) -> None:
        self._redis = redis
        self._request_ttl_s = request_ttl_s
        self._accept = redis.register_script(_ACCEPT)
        self._hand_over = redis.register_script(_HAND_OVER)
        self._queue = redis.register_script(_QUEUE)
        self._replace = redis.register_script(_REPLACE)
        self._remove = redis.register_script(_REMOVE)

    async def create_collection(self, tenant: str, collection: Collection, request: Request | None) -> None:
        records, ids = _collections(tenant)
        with store_errors():
            async with self._redis.pipeline() as pipeline:
                pipeline.hset(records, collection.id, collection.model_dump_json())
                pipeline.zadd(ids, {collection.id: 0})
                if request is not None:
                    value = f"{request.digest} {collection.id}"
                    pipeline.set(_request(tenant, request), value, ex=self._request_ttl_s)
                await pipeline.execute()

    async def created_by(self, tenant: str, request: Request) -> str:
        with store_errors():
            kept = await self._redis.get(_request(tenant, request))
        return made_by(request, str(kept)) if kept else ""

    async def find_collection(self, tenant: str, id: str) -> Collection | None:
        return await self._find(_collections(tenant)[0], id, Collection)

    async def get_collection(self, tenant: str, id: str) -> Collection:
        found = await self.find_collection(tenant, id)
        if found is None:
            raise _no_collection(id)
        return found

    async def list_collections(self, tenant: str, after: str, limit: int) -> Sequence[Collection]:
        return await self._list(*_collections(tenant), after, limit, Collection)

    async def replace_collection(self, tenant: str, collection: Collection) -> bool:
        before = str(collection.revision - 1)
        args = [collection.id, "revision", before, collection.model_dump_json()]
        with store_errors():
            return bool(await self._replace(keys=[_collections(tenant)[0]], args=args))

    async def remove_collection(self, tenant: str, id: str) -> None:
        records, ids = _collections(tenant)
        with store_errors():
            async with self._redis.pipeline() as pipeline:
                pipeline.hdel(records, id)
                pipeline.zrem(ids, id)
                pipeline.delete(*_documents(tenant, id))
                await pipeline.execute()

    async def accept(self, tenant: str, subject: str, document: Document, generation: str) -> bool:
        keys = [_collections(tenant)[0], *_documents(tenant, document.collection), DOCUMENT_WORK]
        item = _item(tenant, subject, document, document.job)
        args = [document.collection, document.id, generation, document.model_dump_json(), *_queued(item)]
        with store_errors():
            accepted = await self._accept(keys=keys, args=args)
        if accepted is None:
            raise _no_collection(document.collection)
        return bool(accepted)

    async def queue(self, tenant: str, subject: str, document: Document, job: str) -> None:
        with store_errors():
            await self._queue(keys=[DOCUMENT_WORK], args=_queued(_item(tenant, subject, document, job)))

    async def hand_over(self, item: WorkItem, document: Document) -> bool:
        keys = [_documents(item.tenant, item.collection)[0], VECTOR_WORK]
        args = [document.id, item.generation, document.model_dump_json(), *_queued(item)]
        with store_errors():
            return bool(await self._hand_over(keys=keys, args=args))

    async def find_document(self, tenant: str, collection: str, id: str) -> Document | None:
        return await self._find(_documents(tenant, collection)[0], id, Document)

    async def get_document(self, tenant: str, collection: str, id: str) -> Document:
        found = await self.find_document(tenant, collection, id)
        if found is None:
            await self.get_collection(tenant, collection)
            raise not_found("document", f"collections/{collection}/documents/{id}", "DOCUMENT_NOT_FOUND")
        return found

    async def list_documents(self, tenant: str, collection: str, after: str, limit: int) -> Sequence[Document]:
        await self.get_collection(tenant, collection)
        return await self._list(*_documents(tenant, collection), after, limit, Document)

    async def count_documents(self, tenant: str, collection: str) -> int:
        with store_errors():
            return int(await self._redis.zcard(_documents(tenant, collection)[1]))

    async def replace_document(self, tenant: str, document: Document, generation: str) -> bool:
        args = [document.id, "generation", generation, document.model_dump_json()]
        with store_errors():
            return bool(await self._replace(keys=[_documents(tenant, document.collection)[0]], args=args))

    async def remove_document(self, tenant: str, document: Document) -> None:
        with store_errors():
            await self._remove(keys=_documents(tenant, document.collection), args=[document.id])

    async def _find(self, records: str, id: str, kind: type[_Kept]) -> _Kept | None:
        with store_errors():
            kept = await self._redis.hget(records, id)
        return kind.model_validate_json(kept) if kept else None

    async def _list(self, records: str, ids: str, after: str, limit: int, kind: type[_Kept]) -> Sequence[_Kept]:
        with store_errors():
            behind = f"({after}" if after else "-"
            page = await self._redis.zrange(ids, behind, "+", bylex=True, offset=0, num=limit)
            found = await self._redis.hmget(records, cast(list[str], page)) if page else []
        return [kind.model_validate_json(kept) for kept in found if kept]


def _item(tenant: str, subject: str, document: Document, job: str) -> WorkItem:
    return WorkItem(tenant, subject, document.collection, document.id, document.generation, job)


def _queued(item: WorkItem) -> list[str]:
    """What `enqueue` needs of an item."""
    return [str(item.lane), item.tenant, *fields(item)]


def _collections(tenant: str) -> tuple[str, str]:
    return tenant_key(tenant, "collections"), tenant_key(tenant, "collection-ids")


def _documents(tenant: str, collection: str) -> tuple[str, str]:
    return tenant_key(tenant, "documents", collection), tenant_key(tenant, "document-ids", collection)


def document_records(tenant: str, collection: str) -> str:
    """The key of a collection's documents."""
    return _documents(tenant, collection)[0]


def _request(tenant: str, request: Request) -> str:
    return tenant_key(tenant, "request", "collection", request.id)


def made_by(request: Request, kept: str) -> str:
    """The id in what is kept of a request; raises REQUEST_ID_REUSED where it was another request."""
    digest, _, id = kept.partition(" ")
    if digest != request.digest:
        metadata = {"request_id": request.id}
        message = "the request_id was used for another request"
        raise InvalidArgument("REQUEST_ID_REUSED", message, metadata=metadata)
    return id


def _no_collection(id: str) -> Exception:
    return not_found("collection", f"collections/{id}", "COLLECTION_NOT_FOUND")
