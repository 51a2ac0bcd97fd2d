"""The rules of the whole contract, as the validator reads them."""

import importlib
from pathlib import Path

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from meshkit.errors import FieldViolation, InvalidArgument
from meshkit.validation import Validation

PROTOS = Path(__file__).parents[2] / "protos"


def methods() -> list[MethodDescriptor]:
    """Every method of the contract."""
    files = sorted(PROTOS.glob("ragmesh/*/v1/*.proto"))
    names = [".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2" for path in files]
    services = [s for name in names for s in importlib.import_module(name).DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_rules_compile(method: MethodDescriptor) -> None:
    """The rules of each request can be checked: an empty one passes or names the fields that it lacks."""
    request = message_factory.GetMessageClass(method.input_type)()
    violations: tuple[FieldViolation, ...] = ()
    try:
        assert Validation().check(request) is request
    except InvalidArgument as error:
        violations = error.violations
    assert all(violation.field and violation.description for violation in violations)
