"""Failures as they are kept and shown: data, where an error is raised."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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

    def error(self, metadata: Mapping[str, str] = MappingProxyType({})) -> MeshError:
        """The failure as an error again."""
        member = next(member for member in MeshError.__subclasses__() if member.code == self.code)
        return member(self.reason, self.message, metadata=metadata)
