"""The check of the operator's pages."""

from onelane import keys
from onelane.doctor.finding import Deployment, Finding, ok, warning


def addresses_are_known(deployment: Deployment) -> Finding:
    """Check that attempts to log in are counted by the caller's address, and not by a proxy's."""
    settings = deployment.settings
    names = len(settings.ops_users) + (settings.ops_password is not None)
    if not names:
        return ok("there are no operator's pages: neither OPS_USERS nor OPS_PASSWORD is set")
    if settings.proxy_hops == 0 and deployment.lanes.scripts.ask(
        lambda: deployment.lanes.client.exists(keys.FORWARDED)
    ):
        return warning(
            "requests come through a proxy and PROXY_HOPS is 0: everybody has one address, and one who tries passwords "
            "keeps all others from logging in",
            "set PROXY_HOPS to how many proxies stand in front; 1 behind a platform's router",
        )
    return ok(f"{names} operator{'' if names == 1 else 's'} may log in")
