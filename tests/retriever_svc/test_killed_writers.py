"""A writer that is killed in the middle of a document: what it had not finished changes nothing."""

import asyncio
import sys
from pathlib import Path

from ragmesh.retriever.v1 import retriever_pb2
from tests.retriever_svc.serving import calling, serve_retriever

ROOT = Path(__file__).parents[2]
WRITER = """
import asyncio, sys
from tests.retriever_svc.serving import calling, upsert

async def main():
    async with calling(sys.argv[1]) as alice:
        async def messages():
            for message in upsert("doc", ["new one", "new two"])[:2]:
                yield message
            print("sent", flush=True)
            await asyncio.Event().wait()

        await alice.index.UpsertDocument(messages())

asyncio.run(main())
"""


async def test_a_killed_writer_changes_nothing(tmp_path: Path) -> None:
    """To a server its stream has ended like a whole one."""
    old = ["old one", "old two", "old three"]
    async with serve_retriever(tmp_path) as address, calling(address) as alice:
        await alice.put()
        await alice.write("doc", old)
        command = (sys.executable, "-c", WRITER, address)
        writer = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        try:
            assert writer.stdout
            async with asyncio.timeout(30):
                assert await writer.stdout.readline() == b"sent\n"
            # So that what it sent is with the server.
            await alice.found("old")
        finally:
            writer.kill()
            await writer.communicate()
        # Another writer's turn comes after that of the killed one, had it begun.
        await alice.write("other", ["text"])
        request = retriever_pb2.ListChunksRequest(parent="collections/kb/documents/doc")
        listed = await alice.retriever.ListChunks(request)
    assert [chunk.text for chunk in listed.chunks] == old
