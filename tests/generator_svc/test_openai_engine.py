"""The engine that asks an OpenAI-compatible upstream, over a server of which each test writes the answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from generator_svc.app import open_app
from generator_svc.engine import FinishReason, Request, Usage
from generator_svc.settings import Settings
from meshkit.errors import InvalidArgument, Unavailable
from meshkit.testing import serve
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests.generator_svc import serving
from tests.generator_svc.scripted_upstream import Exchange, Script, scripted_upstream, usage, word
from tests.generator_svc.upstream_engine import CHAT, KEY, engine_for, engine_over, read, saying


async def test_deltas_come_as_they_are_sent_and_the_last_tells_usage_and_times() -> None:
    """A chunk that only opens the message is no delta; tokens add up to what the usage says."""
    opening = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    script = saying(opening, word("Hel"), word("lo, you"), word("", "stop"), usage(12, 5, cached=8))
    async with engine_over(script) as engine:
        deltas = await read(engine)

    assert [delta.text for delta in deltas] == ["Hel", "lo, you", ""]
    assert [delta.finish for delta in deltas] == [None, None, FinishReason.STOP]
    assert [delta.tokens for delta in deltas] == [1, 1, 3]
    assert [delta.usage for delta in deltas] == [None, None, Usage(12, 8, 5)]
    assert [stage.name for stage in deltas[-1].stages] == ["queue", "first_token", "decode"]


async def test_each_delta_is_given_before_the_next_is_sent() -> None:
    """The upstream goes on only when the reader has what it sent before."""
    seen = asyncio.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for number in range(5):
            await exchange.send(word(f"{number} "))
            await seen.acquire()
        await exchange.send(word("", "length"))
        await exchange.end()

    async with asyncio.timeout(10), engine_over(script) as engine:
        work = await engine.prepare(Request("one", CHAT))
        texts = []
        async for delta in engine.generate(work):
            texts.append(delta.text)
            seen.release()
    assert texts == ["0 ", "1 ", "2 ", "3 ", "4 ", ""]


@pytest.mark.parametrize(
    "parts",
    [
        [": keep-alive\n\n", word("a"), ": keep-alive\n\n", word("b", "stop")],
        ['data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\r\n\r\n', word("b", "stop")],
        ['data:{"choices":[{"index":0,"text":"a"', "}]}\n", "\n", word("b", "stop")],
        ["event: message\nid: 7\nretry: 10\n", word("a"), word("b"), word("", "stop")],
        [word("a"), word("b", "eos_token")],
    ],
    ids=["keep-alives", "crlf", "cut-in-two", "other-fields", "own-word-for-the-end"],
)
async def test_what_upstreams_do_differently_is_read_alike(parts: list[Any]) -> None:
    """Comments, line ends, chunks cut anywhere, no usage."""
    async with engine_over(saying(*parts)) as engine:
        deltas = await read(engine)

    assert "".join(delta.text for delta in deltas) == "ab"
    assert (deltas[-1].finish, deltas[-1].usage) == (FinishReason.STOP, None)


async def test_line_ends_of_unicode_are_text() -> None:
    """A JSON text may hold them as they are; only LF and CRLF end a line."""
    text = "one\u2028two\u0085three\u000b"
    part = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text[:-1]}"}},"finish_reason":"stop"}}]}}\n\n'
    async with engine_over(saying(part)) as engine:
        assert [delta.text for delta in await read(engine)] == [text[:-1]]


async def test_sequences_side_by_side_end_each_on_its_own() -> None:
    """Usage stands on the last delta of all, also where the sequence that was first to end is another."""
    script = saying(word("a0"), word("b0", "stop", 1), word("a1"), word("", "length"), usage(3, 3))
    async with engine_over(script) as engine:
        deltas = await read(engine, n=2)

    assert [(delta.index, delta.text, delta.finish) for delta in deltas] == [
        (0, "a0", None),
        (1, "b0", FinishReason.STOP),
        (0, "a1", None),
        (0, "", FinishReason.LENGTH),
    ]
    assert [delta.usage is not None for delta in deltas] == [False, False, False, True]


async def test_an_upstream_that_makes_fewer_sequences_does_not_take_their_number() -> None:
    """Some make one, whatever is asked."""
    async with engine_over(saying(word("a", "stop"))) as engine:
        with pytest.raises(InvalidArgument, match="1 of 2"):
            await read(engine, n=2)


async def test_an_upstream_that_names_no_model_is_not_ready_unless_it_is_named_here() -> None:
    """Without a name there is nothing to ask for."""
    async with scripted_upstream(saying(word("a", "stop"))) as upstream:
        upstream.models = []
        async with engine_for(upstream.url) as engine:
            with pytest.raises(Unavailable, match="which model"):
                await engine.check()
        async with engine_for(upstream.url, upstream_model="named") as engine:
            await engine.check()
            await read(engine)
        assert upstream.asked[0].body["model"] == "named"


async def test_an_answer_is_whole_without_its_last_event() -> None:
    """All that was asked for has come when each sequence has ended."""
    async with engine_over(saying(word("a", "stop"), done=False)) as engine:
        assert [delta.text for delta in await read(engine)] == ["a"]


@pytest.mark.parametrize(
    "script",
    [
        saying(word("a"), done=False),
        saying(word("a"), done=True),
        saying(word("a"), "garbage\n\n"),
        saying(word("a"), "data: {not json}\n\n"),
        saying(word("a"), "data: [1]\n\n"),
        saying(word("a"), {"choices": "none"}),
        saying(word("a"), {"error": {"message": f"died, {KEY}", "type": "InternalServerError", "code": 500}}),
        saying(word("a"), {"error": "died"}),
        saying(word("a", "abort")),
        saying('{"choices": [{"index": 0, "message": {"content": "not a stream"}}]}\n'),
    ],
    ids=[
        "no-end",
        "no-finish",
        "garbage",
        "no-json",
        "no-object",
        "no-choices",
        "error",
        "error-in-words",
        "aborted",
        "no-stream",
    ],
)
async def test_a_stream_that_goes_wrong_ends_with_unavailable(script: Script) -> None:
    """In mid-stream too, and nothing of what the upstream said is told."""
    async with engine_over(script) as engine:
        with pytest.raises(Unavailable) as caught:
            await read(engine)
    assert caught.value.reason == "ENGINE_UNAVAILABLE"
    assert KEY not in str(caught.value)


async def test_a_connection_that_breaks_in_mid_stream_is_unavailable_after_what_came() -> None:
    """The deltas before it are given; nothing is sent again."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(word("a"))
        await seen.wait()
        exchange.cut()

    seen, texts = asyncio.Event(), []
    async with asyncio.timeout(10), scripted_upstream(script) as upstream, engine_for(upstream.url) as engine:
        work = await engine.prepare(Request("one", CHAT))
        with pytest.raises(Unavailable):
            async for delta in engine.generate(work):
                texts.append(delta.text)
                seen.set()
        assert (texts, len(upstream.asked)) == (["a"], 1)


async def test_silence_is_given_up() -> None:
    """After the idle timeout, however the upstream came to be silent; its connection is closed."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(word("a"))
        await exchange.until_left()
        left.set()

    left = asyncio.Event()
    async with asyncio.timeout(10), engine_over(script, upstream_idle_timeout_s=0.2) as engine:
        with pytest.raises(Unavailable, match="silent"):
            await read(engine)
        await left.wait()


@pytest.mark.parametrize("begun", [False, True])
async def test_leaving_ends_the_request_at_the_upstream(begun: bool) -> None:
    """Both a reader who leaves between deltas and one who waits for the first."""

    async def script(exchange: Exchange) -> None:
        if begun:
            await exchange.head()
            await exchange.send(word("a"))
        asked.set()
        await exchange.until_left()
        left.set()

    asked, left = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(10), engine_over(script) as engine:
        stream = engine.generate(await engine.prepare(Request("one", CHAT)))
        if begun:
            await anext(stream)
            await stream.aclose()
        else:
            waiting = asyncio.ensure_future(anext(stream))
            await asked.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            await stream.aclose()
        await left.wait()


async def test_a_connection_is_used_again_and_one_that_went_stale_is_replaced() -> None:
    """A request that finds its connection closed under it is sent once more, on a new one."""
    whole = saying(word("a", "stop"))

    async def dropping(exchange: Exchange) -> None:
        upstream.script = whole
        exchange.cut()

    async with scripted_upstream(whole) as upstream, engine_for(upstream.url) as engine:
        for _ in range(3):
            await read(engine)
        assert upstream.connections == 1

        upstream.script = dropping
        assert [delta.text for delta in await read(engine)] == ["a"]
        assert (upstream.connections, len(upstream.asked)) == (2, 5)


async def test_an_upstream_that_drops_every_request_is_asked_twice_and_no_more() -> None:
    """Then it is unavailable."""

    async def script(exchange: Exchange) -> None:
        exchange.cut()

    async with scripted_upstream(script) as upstream, engine_for(upstream.url) as engine:
        with pytest.raises(Unavailable):
            await read(engine)
        assert len(upstream.asked) == 2


async def test_the_card_says_what_the_upstream_says_of_itself() -> None:
    """Its first model is the default; a bound is told only where prompts can be counted."""
    async with scripted_upstream(saying()) as upstream:
        upstream.models = [{"id": "big", "owned_by": "vendor", "max_model_len": 4096}]
        async with engine_for(upstream.url) as engine:
            assert (engine.card.model, engine.card.max_model_tokens) == ("big", 0)
            with pytest.raises(InvalidArgument, match="count"):
                await engine.count_tokens(CHAT)

        adapter = {"id": "french", "owned_by": "vllm", "parent": "big"}
        upstream.models = [{"id": "big", "owned_by": "vllm", "max_model_len": 4096}, adapter]
        async with engine_for(upstream.url, model_name="ours") as engine:
            card = engine.card
            assert (card.model, card.max_model_tokens, card.lora_adapters) == ("ours", 4096, ("french",))
            assert (await engine.prepare(Request("one", CHAT, lora_adapter="french"))).payload[1]["model"] == "french"


async def test_an_upstream_that_comes_up_later_is_found() -> None:
    """Until then the engine is there and unavailable."""
    script = saying(word("a", "stop"))
    async with scripted_upstream(script) as upstream:
        gone = upstream.url
    async with AsyncExitStack() as later, engine_for(gone) as engine:
        with pytest.raises(Unavailable):
            await engine.check()
        with pytest.raises(Unavailable):
            await read(engine)

        await later.enter_async_context(scripted_upstream(script, int(gone.split(":")[2].removesuffix("/v1"))))
        async with asyncio.timeout(10):
            while not engine.card.model:
                with suppress(Unavailable):
                    await engine.check()
        assert [delta.text for delta in await read(engine)] == ["a"]


async def test_an_upstream_that_does_not_answer_is_asked_for_no_longer_than_the_timeout() -> None:
    """And only once for checks that come together."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()
        writer.close()

    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    slow = {"upstream_timeout_s": 0.2, "upstream_check_interval_s": 60.0}
    async with server, asyncio.timeout(10), engine_for(url, **slow) as engine:
        began_s = time.monotonic()
        checks = await asyncio.gather(*(engine.check() for _ in range(5)), return_exceptions=True)
        took_s = time.monotonic() - began_s
    assert all(isinstance(check, Unavailable) for check in checks)
    assert len(connections) == 1
    assert took_s < 0.2


async def test_a_key_that_is_not_accepted_is_the_operators_fault() -> None:
    """The check fails, and its words hide the key."""

    async def denying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(denying, "127.0.0.1", 0)
    async with server, engine_for(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as engine:
        with pytest.raises(Unavailable, match="key") as caught:
            await engine.check()
    assert KEY not in str(caught.value)


async def test_the_generator_serves_the_upstream_that_its_settings_name() -> None:
    """It starts whether or not the upstream is there, and says so."""
    script = saying(word("Hel"), word("lo", "stop"), usage(3, 2))
    async with scripted_upstream(script) as upstream, generator(upstream.url) as stub:
        (info,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models
        answer = [message async for message in stub.Generate(serving.request(prompt="A mesh"))]
    assert (info.model, info.ready) == ("ours", True)
    assert (serving.text(answer), answer[-1].usage.completion_tokens) == ("Hello", 2)

    async with generator(upstream.url) as stub:
        (info,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models
        with pytest.raises(Unavailable):
            await serving.read(stub.Generate(serving.request(prompt="A mesh")))
    assert (info.model, info.ready) == ("ours", False)


@asynccontextmanager
async def generator(url: str) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceStub]:
    """A stub for a generator whose settings name the upstream."""
    settings = Settings(listen="127.0.0.1:0", metrics_listen="", drain_grace_s=0.2, upstream_url=url, model_name="ours")
    async with open_app(settings) as app, serve(app, settings) as address, serving.calling(address) as stub:
        yield stub
