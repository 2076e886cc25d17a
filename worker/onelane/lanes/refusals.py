"""What an error of Redis means: the only place that decides.

Of one call alone are a key of another type, a value that is not the number it should be, and a mistake of ours in a
script. Whatever else comes instead of an answer would meet every other call too: an outage. Nobody is charged for it,
and what was to be done is found again. Some outages end only with another setting, and are worded as such.
Redis 6.2 quotes the error of a refused command inside the script's own.
"""

import re
import ssl
from typing import Any, Final

import redis

from onelane.errors import LanesDenied, LanesForeign, LanesUnavailable

FOREIGN: Final = "FOREIGN "
"""How the scripts begin their answer when the lanes are another database's."""
ITS_OWN: Final = re.compile(
    r"WRONGTYPE |is not an integer|is not a valid float|would overflow|[Ww]rong number of arg|compiling script"
    r"|(?<!@)user_script:\d+: (?!@)"
)
"""What concerns one call. Lua's own errors name their line as the last does, those of its commands a little else."""
A_CLUSTER: Final = "is a Redis Cluster, which Onelane cannot use: set REDIS_URL to a single server"
DENIALS: Final = {
    r"\b(NOAUTH|without any password)\b": "wants a password: put it into REDIS_URL",
    r"\bWRONGPASS\b|invalid password|'(auth|AUTH)' command": "refuses the user or the password in REDIS_URL",
    r"\bNOPERM\b|can't run this command|can't access at least|ACL failure": "does not allow the user in REDIS_URL"
    " what Onelane needs: give it the commands and keys that docs/OPERATIONS.md lists",
    r"\b(MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN)\b|cluster node|to the same slot": A_CLUSTER,
    r"No such master with that name": "has no primary of the name in REDIS_URL: its Sentinels do not know that service",
    r"nknown (Redis )?command|nknown subcommand|syntax error": "does not know a command that Onelane needs:"
    " set REDIS_URL to Redis 6.2 or newer, with no proxy in between that forbids commands",
}
"""By what Redis says: what only a setting mends."""
NOT_REDIS: Final = "what answers is no Redis, or broken: check REDIS_URL"
UNREADABLE: Final = (redis.exceptions.InvalidResponse, ValueError, TypeError, AttributeError)
"""What redis-py raises for an answer that it cannot read. It expects an answer to its greeting to be a map."""


def translated(answer: Any) -> Any:
    """Return what an error means for us; the error itself if it concerns its call alone, as any other answer."""
    return _of_error(answer) if isinstance(answer, Exception) else answer


def _of_error(error: Exception) -> Exception:
    if certificate := _certificate_refusal(error):
        return LanesDenied(certificate)
    if isinstance(error, redis.exceptions.ResponseError):
        return _of_answer(error)
    if isinstance(error, redis.exceptions.DataError):
        return error
    if isinstance(error, UNREADABLE):
        return LanesUnavailable(f"{NOT_REDIS} ({type(error).__name__})")
    if isinstance(error, redis.exceptions.RedisError | OSError):
        return _denial(error) or LanesUnavailable(f"Redis did not answer: {type(error).__name__}")
    return error


def _of_answer(error: redis.exceptions.ResponseError) -> Exception:
    if str(error).startswith(FOREIGN):
        return LanesForeign()
    if denial := _denial(error):
        return denial
    return error if ITS_OWN.search(str(error)) else LanesUnavailable(f"Redis refuses: {_word(error)}")


def _denial(error: Exception) -> LanesDenied | None:
    said = f"{getattr(error, 'status_code', None) or ''} {error}"
    sentence = next((sentence for part, sentence in DENIALS.items() if re.search(part, said)), None)
    return LanesDenied(f"Redis {sentence}") if sentence else None


def _word(error: redis.exceptions.ResponseError) -> str:
    """Name the kind of an error by Redis' word for it; the rest of what it says may hold addresses."""
    found = re.search(r": -([A-Z]+) ", str(error)) or re.match(r"([A-Z]{2,}) ", f"{error.status_code} {error}")
    return found[1] if found and found[1] != "ERR" else type(error).__name__


def _certificate_refusal(error: BaseException) -> str | None:
    """Explain what is wrong with Redis' certificate; None when that is not what `error` comes from."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"Redis' certificate is not trusted ({cause.verify_message}): name whom to trust in REDIS_TLS_CA_FILE, "
            "or trust anybody with REDIS_TLS_VERIFY=false"
        )
    return "Redis does not speak TLS as we do: check REDIS_URL (redis:// is without)" if cause else None
