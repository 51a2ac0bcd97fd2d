"""A failure as data: why a document or a job could not be carried out."""

from pydantic import BaseModel, ConfigDict

from meshkit.errors import MeshError

_MEMBERS = {member.code: member for member in MeshError.__subclasses__()}


class Failure(BaseModel):
    """An error of the tree, to be kept and shown later."""

    model_config = ConfigDict(frozen=True)

    code: str
    reason: str
    message: str
    metadata: dict[str, str] = {}

    @classmethod
    def of(cls, error: MeshError) -> "Failure":
        """The failure that an error is."""
        return cls(code=error.code, reason=error.reason, message=error.message, metadata=error.metadata)

    @property
    def without_text(self) -> bool:
        """Whether it is of a document that was read and has no text: nothing is lost. Pages that OCR could read are."""
        return self.reason == "NO_TEXT" and "ocr" not in self.metadata

    def error(self) -> MeshError:
        """The error that the failure was."""
        return _MEMBERS[self.code](self.reason, self.message, metadata=self.metadata)
