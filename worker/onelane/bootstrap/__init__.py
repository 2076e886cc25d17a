"""The only place that wires things together and opens connections."""

from onelane.bootstrap.services import Services, open_services, refuse_foreign_lanes, start_tracing
from onelane.bootstrap.worker import WORKER_REDIS_TIMEOUT_S, Worker, open_worker

__all__ = [
    "WORKER_REDIS_TIMEOUT_S",
    "Services",
    "Worker",
    "open_services",
    "open_worker",
    "refuse_foreign_lanes",
    "start_tracing",
]
