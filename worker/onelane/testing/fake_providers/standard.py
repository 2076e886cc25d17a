"""A service that receives Standard Webhooks: it checks who signed, and shows each `webhook-id` once."""

from standardwebhooks import Webhook

from onelane.testing.fake_providers.api import Api, Call, Message
from onelane.testing.fake_providers.http import Answer, Request, answer_of


class Standard(Api):
    """The receiver of a channel's replies."""

    def read(self, request: Request) -> Call | Answer:
        """Check the signature, then read whatever it is."""
        if request.method != "POST":
            return self.refusal("405")
        if not self._is_signed(request):
            return self.refusal("401")
        values = request.json()
        [user, *_] = values.get("senders") or [""]
        return Call("send", user, request.headers["webhook-id"], str(values.get("text") or ""), values=values)

    def refusal(self, code: str) -> Answer:
        """Answer with a status of HTTP."""
        return answer_of({"error": "refused"}, int(code))

    def limit(self, wait_s: float) -> Answer:
        """Say that it is too much."""
        return answer_of({"error": "too much"}, 429, Retry_After=f"{wait_s:g}")

    def repeated(self, call: Call) -> Message | None:
        """Find what came with the same webhook-id."""
        return self.find(call.key or "")

    def accepted(self, message: Message) -> Answer:  # noqa: ARG002 - the status says it
        """Say that it is here."""
        return answer_of({"ok": True})

    def new_id(self, call: Call) -> str:
        """Keep it by its webhook-id."""
        return call.key or ""

    def _is_signed(self, request: Request) -> bool:
        return any(_verifies(Webhook(secret), request) for secret in self.own["secrets"])


def _verifies(webhook: Webhook, request: Request) -> bool:
    try:
        webhook.verify(request.body, dict(request.headers), json_parse=False)
    except Exception:  # noqa: BLE001 - hostile headers raise half a dozen types; all of them mean "not signed"
        return False
    return True
