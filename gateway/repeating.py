"""Gives an answer again to a caller who asks again under the same request id."""

import hashlib
import uuid

from gateway.answers import Answer, Question
from gateway.events import Emit, Event, Started, Token
from meshkit.errors import InvalidArgument
from meshkit.identity import Identity


def answer_id(question: Question, owner: Identity, call: str) -> str:
    """The id of the question's answer: of its request id, or else of the call that asks it, "" for none.

    The edge repeats a call whose server died before it said anything, and the answer is the same one then.
    """
    if question.request_id:
        return _digest(owner, question.request_id)
    return _digest(owner, "call", call, question.text) if call else uuid.uuid4().hex


def session_id(owner: Identity, answer: str) -> str:
    """The id of the session that an answer begins."""
    return _digest(owner, "session", answer)


def _digest(owner: Identity, *named: str) -> str:
    return hashlib.blake2b("\0".join((owner.tenant, owner.subject, *named)).encode(), digest_size=16).hexdigest()


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
        *answer.grounding,
        answer.usage,
    ]
