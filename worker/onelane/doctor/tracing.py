"""The check of tracing: whether spans can be made here, and go somewhere."""

from onelane.doctor.finding import Deployment, Finding, ok, warning


def spans_arrive(deployment: Deployment) -> Finding:
    """Check that the collector that is named takes spans: it is sent a list without any."""
    if not deployment.settings.is_traced:
        return ok("nothing is traced: OTEL_EXPORTER_OTLP_ENDPOINT is not set, or tracing is switched off")
    try:
        from onelane.telemetry.open_telemetry import collector_answers  # noqa: PLC0415 - who traces nothing has none
    except ImportError:
        return warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: nothing is traced",
            "pip install 'onelane[otel]', or unset it",
        )
    if not collector_answers():
        return warning(
            "the collector of OTEL_EXPORTER_OTLP_ENDPOINT does not take spans: messages go on without",
            "check the address (HTTP, port 4318 by default; not gRPC's 4317) and OTEL_EXPORTER_OTLP_HEADERS",
        )
    return ok("the collector takes spans")
