"""What callers ask, from the contract's messages."""

from collections.abc import Iterator

from gateway.answers import Question, Retrieval
from gateway.generation import Sampling, StructuredOutput, Writing
from gateway.retrieval import Degradation, SearchMode
from meshkit.errors import Unimplemented
from ragmesh.gateway.v1 import answers_pb2
from ragmesh.generator.v1 import generator_pb2


def read_question(request: answers_pb2.AskRequest) -> Question:
    """The question; raises Unimplemented NOT_IMPLEMENTED for tools."""
    if request.tools:
        raise not_offered("tools")
    return Question(
        text=request.question,
        collection=request.collection,
        session=request.session.removeprefix("sessions/"),
        model=request.model,
        retrieval=_read_retrieval(request.retrieval),
        writing=_read_writing(request.generation),
        left_out=tuple(_left_out(request.plan)),
        request_id=request.request_id,
    )


def not_offered(option: str) -> Unimplemented:
    """The error for a part of the contract that this server does not offer yet."""
    text = f"this server does not offer {option} yet"
    return Unimplemented("NOT_IMPLEMENTED", text, metadata={"option": option})


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


def _left_out(plan: answers_pb2.PlanOptions) -> Iterator[Degradation]:
    """The steps that were asked for and that this server does not take yet."""
    for step in ("rewrite", "hyde", "decompose", "max_retrieval_rounds"):
        if getattr(plan, step):
            yield Degradation(step, "NOT_IMPLEMENTED")
