"""Failures as they are kept and shown: data, where an error is raised."""

from dataclasses import dataclass

from meshkit.errors import MeshError


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: a status code's name, a published reason, words."""

    code: str
    reason: str
    message: str

    @classmethod
    def of(cls, error: MeshError) -> "Failure":
        return cls(error.code, error.reason, error.message)
