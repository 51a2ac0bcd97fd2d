"""Log lines as JSON or text, each with the call, the tenant and the trace that it belongs to."""

import json
import logging
import sys
from datetime import UTC, datetime

from meshkit import identity, rpc, telemetry
from meshkit.settings import ServerSettings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(settings: ServerSettings) -> None:
    """Send this process's log to stderr in the form of the settings; called once, by `meshkit.process`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)


def _formatter(settings: ServerSettings) -> logging.Formatter:
    if settings.log_format == "json":
        return JsonFormatter(settings.process)
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {settings.process} %(name)s: %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what is passed as `extra` becomes fields of it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        fields: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": self._service,
        }
        fields.update(_surroundings())
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def _surroundings() -> dict[str, str]:
    """Which call the line was written in; what does not apply is left out."""
    call, caller = rpc.current(), identity.current_or_none()
    trace_id, span_id = telemetry.trace_ids()
    fields = {
        "rpc": call.name if call else "",
        "request_id": call.request_id if call else "",
        "tenant": caller.tenant if caller else "",
        "trace_id": trace_id,
        "span_id": span_id,
    }
    return {key: value for key, value in fields.items() if value}
