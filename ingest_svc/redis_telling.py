"""How a document comes along, kept and told in Redis in one step."""

from redis.asyncio import Redis

from ingest_svc.catalog import Document
from ingest_svc.jobs import Reached
from ingest_svc.progress import Progress
from ingest_svc.redis_catalog import REPLACE, document_records
from ingest_svc.redis_jobs import REACH, parts_of
from ingest_svc.redis_progress import CHANNEL, message
from ingest_svc.work import WorkItem
from meshkit.redis_store import store_errors

# KEYS: documents, then what is kept of the job, where it is told. ARGV: id, generation, record, channel, message,
# stage, whether it was read and can be found: '1' or ''.
_TELL = f"""{REPLACE}{REACH}
if replace(KEYS[1], ARGV[1], 'generation', ARGV[2], ARGV[3]) == 0 then return 0 end
if KEYS[2] then reach({{unpack(KEYS, 2)}}, ARGV[1], ARGV[6], ARGV[7], ARGV[8]) end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
"""


class RedisTelling:
    """Records, stages and progress at once: a document has many of each; needs no closing. See Telling."""

    def __init__(self, redis: Redis) -> None:
        self._tell = redis.register_script(_TELL)

    async def tell(self, item: WorkItem, document: Document, progress: Progress, reached: Reached | None) -> bool:
        keys = [document_records(item.tenant, document.collection)]
        args = [document.id, item.generation, document.model_dump_json(), CHANNEL, message(item.tenant, progress)]
        if reached is not None:
            keys += parts_of(item.tenant, item.job)
            args += [reached.stage, "1" if reached.read else "", "1" if reached.searchable else ""]
        with store_errors():
            return bool(await self._tell(keys=keys, args=args))
