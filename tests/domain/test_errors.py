"""Errors split by what the caller does next."""

from rtserver.domain import errors


def test_every_error_has_one_root_and_one_answer() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.RtserverError)
    assert not issubclass(errors.RetryableError, errors.PermanentError)
    assert issubclass(errors.ChainUnavailable, errors.RetryableError)
    assert issubclass(errors.ConfigError, errors.PermanentError)


def test_a_client_error_carries_its_facts() -> None:
    error = errors.ClientError("rate", "slower", retry_after_ms=250)
    assert (error.code, error.message, error.retry_after_ms, str(error)) == ("rate", "slower", 250, "slower")
