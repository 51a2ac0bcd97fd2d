"""Jobs in Redis."""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

from ingest_svc.catalog import Request, now
from ingest_svc.failure import Failure
from ingest_svc.jobs import DocumentFailure, Job, JobCounts, JobState, Reached, Settled, StageCounts, UnderWay
from ingest_svc.redis_catalog import made_by
from ingest_svc.redis_locks import shared_key, tenant_key
from ingest_svc.redis_queue import ENQUEUE, fields
from ingest_svc.work import Lane, WorkItem
from meshkit.errors import ResourceExhausted, not_found
from meshkit.redis_store import store_errors

JOB_WORK = shared_key("jobs")
_MAX_FAILURES = 100
# Of a job: the documents that were settled, those that were begun and not read yet, the counts, the failures, the stage
# of each document that was read, how many are in each, which can be found by their words, which wait for vectors.
_PARTS = ("settled", "under-way", "counts", "failures", "stages", "in-stages", "searchable", "read")
_RETRY_AFTER_S = 5.0

# KEYS: job, ids, open, queue, request or none.
# ARGV: id, record, what is kept of the request, its seconds, most open jobs, the item's lane and tenant, its fields.
_START = f"""{ENQUEUE}
if KEYS[5] then
  local made = redis.call('GET', KEYS[5])
  if made then return made end
end
if redis.call('SCARD', KEYS[3]) >= tonumber(ARGV[5]) then return false end
if KEYS[5] then redis.call('SET', KEYS[5], ARGV[3], 'EX', ARGV[4]) end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
enqueue(KEYS[4], ARGV[6], ARGV[7], {{unpack(ARGV, 8)}})
return ARGV[3]
"""
# KEYS: job, open, then all that is kept of the job. ARGV: the record as it was read, the new one, id, seconds to keep
# an ended job or '' for one that goes on.
_CHANGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[4] ~= '' then
  redis.call('SREM', KEYS[2], ARGV[3])
  for place = 1, #KEYS do
    if place ~= 2 then redis.call('EXPIRE', KEYS[place], ARGV[4]) end
  end
end
return 1
"""
# KEYS: settled, under way, read. ARGV: key.
_BEGIN = """
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
"""
# The parts are as _PARTS; `read` and `searchable` are '1' or ''.
REACH = """
local function reach(parts, key, stage, read, searchable)
  if redis.call('SISMEMBER', parts[1], key) == 1 then return 0 end
  local before = redis.call('HGET', parts[5], key)
  if before ~= stage then
    if before then redis.call('HINCRBY', parts[6], before, -1) end
    redis.call('HINCRBY', parts[6], stage, 1)
    redis.call('HSET', parts[5], key, stage)
  end
  if read ~= '' then
    redis.call('SADD', parts[8], key)
    redis.call('SREM', parts[2], key)
  end
  if searchable ~= '' then redis.call('SADD', parts[7], key) end
  return 1
end
"""
# KEYS: as _PARTS. ARGV: key, stage, whether it was read and can be found.
_REACH = f"{REACH} return reach(KEYS, unpack(ARGV))"
# KEYS: as _PARTS. ARGV: key, outcome, chunks, bytes, pages, failure or '', failures kept, '1' for one without text.
_SETTLE = """
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[7], ARGV[1])
redis.call('SREM', KEYS[8], ARGV[1])
local stage = redis.call('HGET', KEYS[5], ARGV[1])
if stage then
  redis.call('HDEL', KEYS[5], ARGV[1])
  redis.call('HINCRBY', KEYS[6], stage, -1)
end
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[3], ARGV[2], 1)
redis.call('HINCRBY', KEYS[3], 'chunks', ARGV[3])
redis.call('HINCRBY', KEYS[3], 'bytes', ARGV[4])
redis.call('HINCRBY', KEYS[3], 'pages', ARGV[5])
if ARGV[6] ~= '' and redis.call('LLEN', KEYS[4]) < tonumber(ARGV[7]) then
  redis.call('RPUSH', KEYS[4], ARGV[6])
end
if ARGV[8] ~= '' then redis.call('HINCRBY', KEYS[3], 'without_text', 1) end
return 1
"""


class RedisJobs:
    """Jobs under keys that hold the tenant, forgotten `retention_s` after their end; needs no closing. See JobStore."""

    def __init__(self, redis: Redis, request_ttl_s: int, retention_s: int, max_open: int) -> None:
        self._redis = redis
        self._request_ttl_s = request_ttl_s
        self._retention_s = retention_s
        self._max_open = max_open
        self._start = redis.register_script(_START)
        self._change = redis.register_script(_CHANGE)
        self._begin = redis.register_script(_BEGIN)
        self._reach = redis.register_script(_REACH)
        self._settle = redis.register_script(_SETTLE)

    async def start(self, tenant: str, job: Job, request: Request | None) -> str:
        work = fields(WorkItem(tenant, job.subject, job.collection, job=job.id))
        keys = [_job(tenant, job.id), _ids(tenant), _open(tenant), JOB_WORK]
        if request is not None:
            keys.append(_request(tenant, request))
        kept = f"{request.digest if request else ''} {job.id}"
        args: list[str | int] = [job.id, job.model_dump_json(), kept, self._request_ttl_s, self._max_open]
        with store_errors():
            args += [str(Lane.BULK), tenant, *work]
            made = await self._start(keys=keys, args=args)
        if made is None:
            metadata = {"limit": str(self._max_open)}
            message = "the tenant has as many jobs as it may have at once"
            raise ResourceExhausted("OVERLOADED", message, metadata=metadata, retry_after_s=_RETRY_AFTER_S)
        return made_by(request, str(made)) if request else job.id

    async def started_by(self, tenant: str, request: Request) -> str:
        with store_errors():
            kept = await self._redis.get(_request(tenant, request))
        return made_by(request, str(kept)) if kept else ""

    async def get(self, tenant: str, id: str) -> Job:
        key = _job(tenant, id)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.hgetall(f"{key}:counts")
                pipeline.lrange(f"{key}:failures", 0, -1)
                pipeline.hgetall(f"{key}:in-stages")
                pipeline.scard(f"{key}:searchable")
                kept, counts, failures, in_stages, searchable = await pipeline.execute()
        if not kept:
            raise not_found("job", f"jobs/{id}", "JOB_NOT_FOUND")
        values = {
            "counts": JobCounts.model_validate({**counts, "searchable": searchable}),
            "in_stages": StageCounts.model_validate(in_stages),
            "failures": tuple(DocumentFailure.model_validate_json(failure) for failure in failures),
        }
        return Job.model_validate_json(kept).model_copy(update=values)

    async def state(self, tenant: str, id: str) -> JobState | None:
        with store_errors():
            kept = await self._redis.get(_job(tenant, id))
        return Job.model_validate_json(kept).state if kept else None

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[Job]:
        behind = f"({after}" if after else "+"
        with store_errors():
            found = await self._redis.zrange(
                _ids(tenant),
                behind,
                "-",
                desc=True,
                bylex=True,
                offset=0,
                num=limit,
            )
            ids = cast(list[str], found)
            kept = await self._redis.mget([_job(tenant, id) for id in ids]) if ids else []
            forgotten = [id for id, record in zip(ids, kept, strict=True) if not record]
            if forgotten:
                await self._redis.zrem(_ids(tenant), *forgotten)
        return [await self.get(tenant, id) for id in ids if id not in forgotten]

    async def change(
        self, tenant: str, id: str, states: Sequence[JobState], to: JobState, failure: Failure | None = None
    ) -> bool:
        key = _job(tenant, id)
        keys = [key, _open(tenant), *parts_of(tenant, id)]
        while True:
            with store_errors():
                kept = cast(str | None, await self._redis.get(key))
            job = Job.model_validate_json(kept) if kept else None
            if kept is None or job is None or job.state not in states:
                return False
            values = {"state": to, "failure": failure, "end_time": now() if to.ended else None}
            changed = job.model_copy(update=values).model_dump_json()
            args: list[str | int] = [kept, changed, id, self._retention_s if to.ended else ""]
            with store_errors():
                if await self._change(keys=keys, args=args):
                    return True

    async def found(self, tenant: str, id: str, files: int) -> None:
        with store_errors():
            await self._redis.hset(f"{_job(tenant, id)}:counts", "found", str(files))

    async def deleted(self, tenant: str, id: str) -> None:
        with store_errors():
            await self._redis.hincrby(f"{_job(tenant, id)}:counts", "deleted", 1)

    async def begin(self, tenant: str, id: str, key: str) -> bool:
        job = _job(tenant, id)
        with store_errors():
            return bool(await self._begin(keys=[f"{job}:settled", f"{job}:under-way", f"{job}:read"], args=[key]))

    async def reach(self, tenant: str, id: str, reached: Reached) -> None:
        keys = parts_of(tenant, id)
        flags = ["1" if said else "" for said in (reached.read, reached.searchable)]
        with store_errors():
            await self._reach(keys=keys, args=[reached.key, reached.stage, *flags])

    async def under_way(self, tenant: str, id: str) -> UnderWay:
        job = _job(tenant, id)
        with store_errors():
            # One that is read between the two is counted twice, none not at all.
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.scard(f"{job}:under-way")
                pipeline.scard(f"{job}:read")
                unread, read = await pipeline.execute()
        return UnderWay(unread, unread + read)

    async def settle(self, tenant: str, id: str, settled: Settled) -> None:
        keys = parts_of(tenant, id)
        failure = settled.failure.model_dump_json() if settled.failure else ""
        args: list[str | int] = [settled.key, settled.outcome, settled.chunks, settled.bytes, settled.pages]
        with store_errors():
            await self._settle(keys=keys, args=[*args, failure, _MAX_FAILURES, "1" if settled.without_text else ""])


def _job(tenant: str, id: str) -> str:
    return tenant_key(tenant, "job", id)


def parts_of(tenant: str, id: str) -> list[str]:
    """The keys of what is kept of a job beside its record."""
    job = _job(tenant, id)
    return [f"{job}:{part}" for part in _PARTS]


def _request(tenant: str, request: Request) -> str:
    return tenant_key(tenant, "request", "job", request.id)


def _ids(tenant: str) -> str:
    return tenant_key(tenant, "job-ids")


def _open(tenant: str) -> str:
    return tenant_key(tenant, "open-jobs")
