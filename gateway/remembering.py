"""How much of a conversation an answer is shown: the last turns within a bound, and a summary of those before."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.answers import Exchange
from gateway.sessions import Session, Turn

# English has about four bytes a token, Chinese one to two signs of three bytes: near enough to share a context out.
_BYTES_PER_TOKEN = 4
# When more has been said than is shown, all but this part of the bound is summarised: so that a turn that ends a long
# conversation is not followed by a summary each time, and prompts have the same beginning until the next one.
_KEPT = 0.5


@dataclass(frozen=True, slots=True)
class Bound:
    """The most of a conversation that is shown: turns, and tokens as estimated."""

    turns: int
    tokens: int

    def kept(self) -> "Bound":
        """What stays as it was said when the rest is summarised."""
        return Bound(max(int(_KEPT * self.turns), 1), int(_KEPT * self.tokens))


@dataclass(frozen=True, slots=True)
class Memory:
    """What an answer knows of its conversation: a summary, and the turns after it, oldest first.

    `older` are turns that are to be put into the summary.
    """

    history: tuple[Exchange, ...] = ()
    summary: str = ""
    older: tuple[Turn, ...] = ()


def remember(session: Session, bound: Bound) -> Memory:
    """The session as an answer is shown it; turns that said nothing are left out."""
    turns = [turn for turn in _after(session) if turn.text]
    exchanges = [Exchange(turn.question, turn.text) for turn in turns]
    shown = newest(exchanges, bound)
    kept = len(newest(exchanges, bound.kept())) if len(shown) < len(turns) else len(turns)
    summary = session.summary.text if session.summary else ""
    return Memory(shown, summary, tuple(turns[: len(turns) - kept]))


def newest(history: Sequence[Exchange], bound: Bound) -> tuple[Exchange, ...]:
    """As many of the last exchanges as the bound has room for."""
    tokens = 0
    for count, exchange in enumerate(reversed(history)):
        tokens += estimated_tokens(exchange.question) + estimated_tokens(exchange.text)
        if count == bound.turns or tokens > bound.tokens:
            return tuple(history[len(history) - count :])
    return tuple(history)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, for no price."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1


def _after(session: Session) -> Sequence[Turn]:
    """The turns that the summary does not tell."""
    through = session.summary.through if session.summary else ""
    place = next((place for place, turn in enumerate(session.turns, start=1) if turn.answer == through), 0)
    return session.turns[place:]
