"""Which questions are equal: asked in other letters or spaces, by callers who may see the same."""

import hashlib
import unicodedata

from gateway.answers import Question
from meshkit.identity import Identity

# What ends a question or stands around it, in any script that has it, says nothing of what is asked.
_AROUND = " .?!¿¡。？！．…"  # noqa: RUF001


def question_key(question: Question, owner: Identity) -> str:
    """What equal questions share and no others do; a hash, the same on every replica.

    Equal questions come from one tenant, under the same scopes, to one collection, with the same options and the same
    conversation before them. The collection's version and the model behind the name "" stand beside the key where they
    matter. "" for a question that goes on a kept session or has tools of its caller's: it is equal to none.
    """
    if question.session or question.tools or question.tool_exchanges:
        return ""
    return digest(kind_key(question, owner), question.history, normalised(question.text))


def kind_key(question: Question, owner: Identity) -> str:
    """What the questions share that may have the same answer but for their texts; a hash."""
    asked = (question.collection, question.model, question.retrieval, question.writing, question.planning)
    return digest(owner.tenant, sorted(owner.scopes), *asked)


def normalised(text: str) -> str:
    """The text without what does not change its sense: forms of letters, case, spaces and the marks at its ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split()).strip(_AROUND)


def digest(*parts: object) -> str:
    """A hash of the parts; theirs are the literals, dataclasses and enums of which questions are made."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
