"""What an exception of LiteLLM means for the attempt that raised it. Works on names, so that it imports nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from balkit.teacher.protocol import Outcome

#: Exceptions of LiteLLM, by class name; a class that is not here counts as its nearest base that is. An
#: InternalServerError is also what LiteLLM makes of an answer that it cannot read, so alone it proves nothing.
OUTCOMES: dict[str, Outcome] = {
    "AuthenticationError": "stop",
    "PermissionDeniedError": "stop",
    "PaymentRequiredError": "stop",
    "BudgetExceededError": "stop",
    "NotFoundError": "stop",
    "LiteLLMUnknownProvider": "stop",
    "UnsupportedParamsError": "stop",
    "ModelNotMappedError": "stop",
    "RateLimitError": "rate_limited",
    "ServiceUnavailableError": "transient",
    "BadGatewayError": "transient",
    "BadRequestError": "permanent",
    "UnprocessableEntityError": "permanent",
    "GuardrailRaisedException": "permanent",
    "BlockedPiiEntityError": "permanent",
    "ModifyResponseException": "permanent",
    "SensitiveDataRouteException": "permanent",
    "InternalServerError": "unknown",
    "MidStreamFallbackError": "unknown",
    "Timeout": "unknown",
    "APIError": "unknown",
    "APIConnectionError": "unknown",
    "APIResponseValidationError": "unknown",
    "OpenAIError": "unknown",
}

#: Statuses of an error that was received whole; the other 5xx are transient, the other 4xx permanent.
STATUSES: dict[int, Outcome] = {
    401: "stop",
    402: "stop",
    403: "stop",
    404: "stop",
    405: "stop",
    408: "transient",
    409: "transient",
    425: "transient",
    429: "rate_limited",
}

#: What is raised when no connection came about, so that nothing was sent. (A reset later is httpx.ConnectError too.)
_NOT_SENT = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientConnectorCertificateError",
    "ConnectionTimeoutError",
    "ConnectionRefusedError",
    "gaierror",
    "ConnectTimeout",
    "PoolTimeout",
}

#: What is said, with whatever class and status, where no request at all would work: no quota, no key.
_HOPELESS = (
    "insufficient_quota",
    "exceeded your current quota",
    "credit balance is too low",
    "insufficient balance",
    "missing credentials",
    "api_key client option must be set",
    "llm provider not provided",
)


def outcome_of(error: BaseException) -> Outcome:
    """The outcome of an attempt that ended in this exception. In doubt it is `unknown`: it may have been paid for."""
    chain = list(_chain(error))
    if _NOT_SENT & {name for link in chain for name in _names(link)}:
        return "transient"
    if any(phrase in str(link).lower() for link in chain for phrase in _HOPELESS):
        return "stop"
    by_name: Outcome = next((OUTCOMES[name] for name in _names(error) if name in OUTCOMES), "unknown")
    status = _status(chain)
    if status is None and by_name == "permanent" and len(chain) > 1:
        return "unknown"  # LiteLLM blames the request for an answer that it could not read
    if status is None or by_name == "stop":
        return by_name
    return _of_status(status)


def outcome_of_answer(status: int, text: str) -> Outcome:
    """The outcome of an error that stands, whole, in a file of answers."""
    return "stop" if any(phrase in text.lower() for phrase in _HOPELESS) else _of_status(status)


def retry_after_s(error: BaseException) -> float | None:
    """Seconds that the provider asks to wait, given as a number or as a date; None where it does not say."""
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        said = headers.get("retry-after") if headers is not None else None
        if said:
            return _seconds(str(said))
    return None


def _of_status(status: int) -> Outcome:
    return STATUSES.get(status, "transient" if status >= 500 else "permanent")


def _seconds(said: str) -> float | None:
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _status(chain: list[BaseException]) -> int | None:
    """The status that the provider sent. LiteLLM makes up one of its own, so only the HTTP libraries are believed."""
    for link in chain:
        names = _names(link)
        of_http_library = type(link).__module__.split(".")[0] in ("openai", "httpx")
        if of_http_library and ("APIStatusError" in names or "HTTPStatusError" in names):
            return int(link.response.status_code)  # type: ignore[attr-defined]
    return None
