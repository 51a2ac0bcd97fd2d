"""GeneratorService: proto to domain and back."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from generator_svc.engine import (
    Chat,
    Delta,
    EngineKind,
    FinishReason,
    Form,
    Grounded,
    Input,
    Logprobs,
    Message,
    Passage,
    Prompt,
    Request,
    Sampling,
    Stage,
    TokenLogprob,
    Usage,
)
from generator_svc.generating import Generator, Load
from meshkit import identity, orca
from meshkit.errors import MeshError, invalid, not_found
from ragmesh.common.v1 import usage_pb2
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_ROLES = {
    generator_pb2.ROLE_SYSTEM: "system",
    generator_pb2.ROLE_USER: "user",
    generator_pb2.ROLE_ASSISTANT: "assistant",
    generator_pb2.ROLE_TOOL: "tool",
}
_KINDS = {
    EngineKind.LANGUAGE_MODEL: generator_pb2.ENGINE_KIND_LANGUAGE_MODEL,
    EngineKind.EXTRACTIVE: generator_pb2.ENGINE_KIND_EXTRACTIVE,
}
_FINISHES = {
    FinishReason.STOP: generator_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: generator_pb2.FINISH_REASON_LENGTH,
    FinishReason.ABSTAINED: generator_pb2.FINISH_REASON_ABSTAINED,
}
_INT32_MAX = 2**31 - 1


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers for one engine, which its app opens and closes."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        """The deltas, the first with the generation's id and model; the load in the trailers, however it ends."""
        try:
            self._check_model(request.model)
            id = request.generation_id or uuid.uuid4().hex
            name: generator_pb2.GenerateResponse | None = generator_pb2.GenerateResponse(
                generation_id=id, model=self._generator.engine.card.model
            )
            async with aclosing(self._generator.generate(_request(request, id))) as deltas:
                async for delta in deltas:
                    response = _response(delta)
                    if name:
                        response.MergeFrom(name)
                        name = None
                    yield response
        finally:
            context.set_trailing_metadata(orca.to_trailers(_report(self._generator.load())))

    async def Abort(self, request: generator_pb2.AbortRequest, context: Context) -> generator_pb2.AbortResponse:
        """End a generation of the caller's tenant."""
        aborted = await self._generator.abort(f"{identity.current().tenant}/{request.generation_id}")
        return generator_pb2.AbortResponse(aborted=aborted)

    async def CountTokens(
        self, request: generator_pb2.CountTokensRequest, context: Context
    ) -> generator_pb2.CountTokensResponse:
        """The length of a prompt."""
        self._check_model(request.model)
        given = _chat(request.chat) if request.HasField("chat") else Prompt(request.prompt)
        engine = self._generator.engine
        tokens = await engine.count_tokens(given)
        return generator_pb2.CountTokensResponse(tokens=tokens, max_model_tokens=engine.card.max_model_tokens)

    async def ListModels(
        self, request: generator_pb2.ListModelsRequest, context: Context
    ) -> generator_pb2.ListModelsResponse:
        """The one model."""
        card = self._generator.engine.card
        model = generator_pb2.ModelInfo(
            model=card.model,
            kind=_KINDS[card.kind],
            max_model_tokens=card.max_model_tokens,
            engine=card.engine,
            description=card.description,
            ready=await self._ready(),
            structured_output=card.structured_output,
            lora_adapters=card.lora_adapters,
        )
        return generator_pb2.ListModelsResponse(models=[model])

    async def GetLoad(self, request: generator_pb2.GetLoadRequest, context: Context) -> generator_pb2.GetLoadResponse:
        """The work at hand."""
        load = self._generator.load()
        return generator_pb2.GetLoadResponse(
            running=load.running,
            waiting=load.waiting,
            limit=load.limit,
            kv_cache_use=load.cache_use,
            tokens_per_second=load.tokens_per_second,
            outstanding_tokens=min(load.outstanding_tokens, _INT32_MAX),
            running_tokens=load.running_tokens,
            token_limit=load.token_limit,
        )

    def _check_model(self, model: str) -> None:
        if model not in ("", self._generator.engine.card.model):
            raise not_found("model", model, "MODEL_NOT_FOUND")

    async def _ready(self) -> bool:
        try:
            await self._generator.engine.check()
        except MeshError:
            return False
        return True


def _report(load: Load) -> orca.LoadReport:
    return orca.LoadReport(
        running=load.running,
        waiting=load.waiting,
        limit=load.limit,
        outstanding_tokens=load.outstanding_tokens,
        tokens_per_second=load.tokens_per_second,
        cache_use=load.cache_use,
    )


def _request(message: generator_pb2.GenerateRequest, id: str) -> Request:
    return Request(
        id=id,
        input=_input(message),
        owner=identity.current().tenant,
        sampling=_sampling(message.sampling),
        max_tokens=message.max_tokens,
        stop=tuple(message.stop),
        stop_token_ids=tuple(message.stop_token_ids),
        form=_form(message.structured_output) if message.HasField("structured_output") else None,
        n=message.n or 1,
        logprobs=message.logprobs,
        priority=message.priority,
        lora_adapter=message.lora_adapter,
        ignore_eos=message.ignore_eos,
    )


def _input(message: generator_pb2.GenerateRequest) -> Input:
    if message.HasField("chat"):
        return _chat(message.chat)
    return _grounded(message.grounded) if message.HasField("grounded") else Prompt(message.prompt)


def _chat(chat: generator_pb2.Chat) -> Chat:
    messages = [Message(_ROLES[message.role], message.content, message.tool_call_id) for message in chat.messages]
    return Chat(messages, MessageToDict(chat.template_arguments))


def _grounded(grounded: generator_pb2.Grounded) -> Grounded:
    passages = [Passage(passage.number, passage.text, passage.title, passage.score) for passage in grounded.passages]
    return Grounded(grounded.question, passages)


def _sampling(sampling: generator_pb2.Sampling) -> Sampling:
    return Sampling(**{field.name: value for field, value in sampling.ListFields()})


def _form(form: generator_pb2.StructuredOutput) -> Form:
    ((field, value),) = form.ListFields()
    if not value:
        raise invalid(f"structured_output.{field.name}", "says nothing")
    return Form(choice=tuple(value.texts)) if field.name == "choice" else Form(**{field.name: value})


def _response(delta: Delta) -> generator_pb2.GenerateResponse:
    response = generator_pb2.GenerateResponse(index=delta.index, text=delta.text, token_ids=delta.token_ids)
    # Most deltas have no more, and a field takes its time also where there is nothing to set.
    if delta.logprobs:
        response.logprobs.extend(map(_logprobs, delta.logprobs))
    if delta.finish:
        response.finish_reason = _FINISHES[delta.finish]
    if delta.usage:
        response.usage.CopyFrom(_usage(delta.usage))
    if delta.stages:
        response.timings.CopyFrom(_timings(delta.stages))
    return response


def _logprobs(position: Logprobs) -> generator_pb2.Logprobs:
    return generator_pb2.Logprobs(token=_token(position.token), top=[_token(token) for token in position.top])


def _token(token: TokenLogprob) -> generator_pb2.TokenLogprob:
    return generator_pb2.TokenLogprob(token_id=token.token_id, text=token.text, logprob=token.logprob)


def _usage(usage: Usage) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _timings(stages: Sequence[Stage]) -> usage_pb2.Timings:
    return usage_pb2.Timings(
        timings=[
            usage_pb2.Timing(stage=stage.name, start=_duration(stage.start_s), duration=_duration(stage.duration_s))
            for stage in stages
        ]
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration
