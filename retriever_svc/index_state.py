"""The state of an index as JSON, for whatever keeps it."""

from collections.abc import Mapping
from typing import Any

from retriever_svc.filtering import FieldType
from retriever_svc.fusion import Fusion, ReciprocalRank, Weighted
from retriever_svc.index import IndexSpec, Language, Replaced, State


def write_state(state: State) -> dict[str, Any]:
    """The state as a JSON object. A field added later has a default when read: what was written before is without."""
    replaced = state.replaced
    return {
        **_write_spec(state.spec),
        "version": state.version,
        "gaps": state.gaps,
        "chunks": state.chunks,
        "replaced": {**_write_spec(replaced.spec), "chunks": replaced.chunks} if replaced else None,
        "successor": state.successor,
    }


def read_state(values: Mapping[str, Any]) -> State:
    """The state that `write_state` wrote."""
    replaced = values.get("replaced")
    return State(
        spec=_read_spec(values),
        version=values["version"],
        gaps=values["gaps"],
        chunks=values.get("chunks", ""),
        replaced=Replaced(_read_spec(replaced), replaced["chunks"]) if replaced else None,
        successor=values.get("successor", ""),
    )


def _write_spec(spec: IndexSpec) -> dict[str, Any]:
    return {
        "encoder": spec.encoder,
        "dimension": spec.dimension,
        "language": spec.language.value,
        "fusion": _write_fusion(spec.fusion),
        "fields": {name: type_.name for name, type_ in spec.fields.items()},
    }


def _read_spec(values: Mapping[str, Any]) -> IndexSpec:
    return IndexSpec(
        encoder=values["encoder"],
        dimension=values["dimension"],
        language=Language(values["language"]),
        fusion=_read_fusion(values["fusion"]),
        fields={name: FieldType[type_] for name, type_ in values["fields"].items()},
    )


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
