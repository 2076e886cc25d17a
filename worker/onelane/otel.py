"""Whether spans are made: the variables of OpenTelemetry's SDK that decide it. All others it reads by itself."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

EXPORTER = "otlp"


class Otel(BaseSettings):
    """Where spans go."""

    otel_exporter_otlp_endpoint: Annotated[str, Field(repr=False)] = ""
    otel_exporter_otlp_traces_endpoint: Annotated[str, Field(repr=False)] = ""
    otel_traces_exporter: str = EXPORTER
    otel_sdk_disabled: bool = False

    @property
    def is_traced(self) -> bool:
        """Whether spans are to be sent somewhere."""
        has_endpoint = bool(self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint)
        return has_endpoint and EXPORTER in self.otel_traces_exporter.split(",") and not self.otel_sdk_disabled
