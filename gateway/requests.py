"""What callers ask, from the contract's messages."""

from dataclasses import replace

from google.protobuf.json_format import MessageToDict

from gateway.answers import CachePolicy, Planning, Question, Retrieval
from gateway.failures import Failure
from gateway.generation import Sampling, StructuredOutput, Writing
from gateway.retrieval import SearchMode
from gateway.tools import Tool, ToolCall, ToolExchange, ToolResult
from meshkit.deadline import Deadline, capped
from ragmesh.gateway.v1 import answers_pb2, events_pb2
from ragmesh.generator.v1 import generator_pb2


def read_question(request: answers_pb2.AskRequest) -> Question:
    """The question as it was asked."""
    return Question(
        text=request.question,
        collection=request.collection,
        session=request.session.removeprefix("sessions/"),
        model=request.model,
        retrieval=_read_retrieval(request.retrieval),
        writing=_read_writing(request.generation),
        planning=_read_planning(request.plan),
        tools=tuple(map(_read_tool, request.tools)),
        tool_exchanges=tuple(map(_read_exchange, request.tool_exchanges)),
        cache=CachePolicy(request.cache) if request.cache else CachePolicy.USE,
        linger_s=request.linger.ToTimedelta().total_seconds(),
        request_id=request.request_id,
    )


def read_replay(request: answers_pb2.ReplayAnswerRequest, asked: Question) -> Question:
    """The question that was asked, with the other options that the request gives."""
    return replace(
        asked,
        model=request.model or asked.model,
        retrieval=_read_retrieval(request.retrieval) if request.HasField("retrieval") else asked.retrieval,
        writing=_read_writing(request.generation) if request.HasField("generation") else asked.writing,
        planning=_read_planning(request.plan) if request.HasField("plan") else asked.planning,
    )


def replay_deadline(request: answers_pb2.ReplayAnswerRequest) -> Deadline:
    """Until when the replay may take: as long as the request says, within the call's own time."""
    asked_s = request.timeout.ToTimedelta().total_seconds() or float("inf")
    return capped(asked_s, asked_s)


def _read_retrieval(options: answers_pb2.RetrievalOptions) -> Retrieval:
    return Retrieval(
        mode=SearchMode(options.mode) if options.mode else SearchMode.HYBRID,
        top_k=options.top_k,
        filter=options.filter,
        rerank=options.rerank,
        diversity=options.diversity,
        window=options.window,
    )


def _read_writing(options: answers_pb2.GenerationOptions) -> Writing:
    form = options.structured_output if options.HasField("structured_output") else None
    return Writing(
        max_tokens=options.max_tokens,
        sampling=Sampling(**{field.name: value for field, value in options.sampling.ListFields()}),
        stop=tuple(options.stop),
        structured_output=_read_form(form) if form else None,
        instructions=options.instructions,
    )


def _read_form(message: generator_pb2.StructuredOutput) -> StructuredOutput | None:
    form = message.WhichOneof("form")
    if form is None:
        return None
    return StructuredOutput(form, tuple(message.choice.texts) if form == "choice" else getattr(message, form))


def _read_planning(options: answers_pb2.PlanOptions) -> Planning:
    return Planning(
        rewrite=options.rewrite if options.HasField("rewrite") else None,
        hyde=options.hyde if options.HasField("hyde") else None,
        decompose=options.decompose if options.HasField("decompose") else None,
        max_retrieval_rounds=options.max_retrieval_rounds if options.HasField("max_retrieval_rounds") else None,
        server_tools=tuple(options.server_tools),
        search_collections=tuple(options.search_collections),
    )


def _read_tool(tool: answers_pb2.Tool) -> Tool:
    return Tool(tool.tool, tool.description, MessageToDict(tool.parameters_schema))


def _read_exchange(exchange: answers_pb2.ToolExchange) -> ToolExchange:
    call = exchange.call
    asked = ToolCall(call.id, call.tool, MessageToDict(call.arguments), caller_runs=True)
    return ToolExchange(asked, read_tool_result(exchange.result))


def read_tool_result(result: events_pb2.ToolResult) -> ToolResult:
    """What a tool of the caller's answered, or why it failed, in the caller's words, whatever its code."""
    error = result.error
    failure = Failure("ABORTED", "TOOL_FAILED", error.message) if error.code else None
    return ToolResult(result.id, result.content, failure)
