"""Gives an answer again to a caller who asks again under the same request id."""

import hashlib

from gateway.answers import Answer, Question
from gateway.events import Emit, Event, Started, Token
from meshkit.errors import InvalidArgument
from meshkit.identity import Identity


def answer_id(owner: Identity, request_id: str) -> str:
    """The id of the answer that the owner's request id names."""
    named = f"{owner.tenant}\0{owner.subject}\0{request_id}"
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def check_same(question: Question, answer: Answer) -> None:
    """Raise InvalidArgument REQUEST_ID_REUSED where the answer is another question's."""
    if (question.text, question.collection) != (answer.question, answer.collection):
        metadata = {"request_id": question.request_id}
        raise InvalidArgument("REQUEST_ID_REUSED", "the request id was used for another question", metadata=metadata)


async def repeat(answer: Answer, emit: Emit) -> None:
    """Emit the events of an answer that was given before."""
    for event in (*told_again(answer), answer):
        await emit(event)


def told_again(answer: Answer) -> list[Event]:
    """The events of an answer but for the last one; the text comes whole, the search is left out."""
    return [
        Started(answer.id, answer.session, answer.collection, answer.model),
        *([Token(answer.text, answer.usage.completion_tokens)] if answer.text else []),
        *answer.citations,
        answer.usage,
    ]
