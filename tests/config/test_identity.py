"""What is kept is only taken up again for the very contracts that it was kept of."""

import pytest

from rtserver.config import ProtocolSettings
from rtserver.parts import identity_of

_OTHER = "0x" + "ef" * 20


def _settings(**changed: str) -> ProtocolSettings:
    known = {
        "kind": "uniswap-v3",
        "factory": "0x" + "ab" * 20,
        "position_manager": "0x" + "cd" * 20,
        "staker": "0x" + "12" * 20,
        "init_code_hash": "0x" + "34" * 32,
    }
    return ProtocolSettings.model_validate(known | changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("factory", _OTHER), ("position_manager", _OTHER), ("staker", _OTHER), ("init_code_hash", "0x" + "56" * 32)],
)
def test_another_contract_is_another_identity(name: str, value: str) -> None:
    assert identity_of([_settings(**{name: value})]) != identity_of([_settings()])


def test_neither_order_nor_spelling_is() -> None:
    mine, other = _settings(), _settings(factory=_OTHER)
    assert identity_of([mine, other]) == identity_of([other, mine])
    assert identity_of([_settings(staker="0x" + "ab" * 20)]) == identity_of([_settings(staker="0x" + "ab" * 20)])
