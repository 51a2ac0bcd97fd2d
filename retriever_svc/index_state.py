"""The state of an index as JSON, for whatever keeps it."""

from collections.abc import Mapping
from typing import Any

from retriever_svc.filtering import FieldType
from retriever_svc.fusion import Fusion, ReciprocalRank, Weighted
from retriever_svc.index import IndexSpec, Language, State


def write_state(state: State) -> dict[str, Any]:
    """The state as a JSON object. A field added later has a default when read: what was written before is without."""
    spec = state.spec
    return {
        "encoder": spec.encoder,
        "dimension": spec.dimension,
        "language": spec.language.value,
        "fusion": _write_fusion(spec.fusion),
        "fields": {name: type_.name for name, type_ in spec.fields.items()},
        "version": state.version,
        "gaps": state.gaps,
    }


def read_state(values: Mapping[str, Any]) -> State:
    """The state that `write_state` wrote."""
    spec = IndexSpec(
        encoder=values["encoder"],
        dimension=values["dimension"],
        language=Language(values["language"]),
        fusion=_read_fusion(values["fusion"]),
        fields={name: FieldType[type_] for name, type_ in values["fields"].items()},
    )
    return State(spec, values["version"], values["gaps"])


def _write_fusion(fusion: Fusion | None) -> dict[str, float]:
    match fusion:
        case ReciprocalRank(k):
            return {"reciprocal_rank": k}
        case Weighted(dense):
            return {"weighted": dense}
        case None:
            return {}


def _read_fusion(values: Mapping[str, float]) -> Fusion | None:
    if "reciprocal_rank" in values:
        return ReciprocalRank(int(values["reciprocal_rank"]))
    return Weighted(values["weighted"]) if "weighted" in values else None
