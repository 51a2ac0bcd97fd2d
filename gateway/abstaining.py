"""How a language model says that the passages hold no answer, so that callers get data and not prose."""

NO_ANSWER = "NO_ANSWER"


class Abstaining:
    """Watches the beginning of one model's answer and holds it back while it may become NO_ANSWER."""

    def __init__(self) -> None:
        self.abstained = False
        self._held = ""
        self._passing = False

    def feed(self, text: str) -> str:
        """What of the text so far may be shown, from where the last call left off."""
        if self._passing:
            return text
        self._held += text
        begun = self._held.lstrip()
        self.abstained = begun.startswith(NO_ANSWER)
        if self.abstained or NO_ANSWER.startswith(begun):
            return ""
        return self.rest()

    def rest(self) -> str:
        """What is held back still, once the model has ended without abstaining."""
        held, self._held, self._passing = self._held, "", True
        return held
