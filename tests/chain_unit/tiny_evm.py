"""Just enough of an EVM to run the batching loop: the opcodes it uses, memory, and calls answered by a function."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["run"]

M256 = (1 << 256) - 1
# (address, calldata) → (success, return data)
Answer = Callable[[int, bytes], tuple[bool, bytes]]
# About what an opcode costs, and the first call of an address.
_STEP_GAS, _CALL_GAS = 3, 2600


class _Memory(bytearray):
    def reach(self, end: int) -> None:
        """Grow to whole words, with zeros."""
        end = -(-end // 32) * 32
        if end > len(self):
            self.extend(bytes(end - len(self)))


def run(
    code: bytes,
    calldata: bytes,
    answer: Answer,
    *,
    gas: int = 10**12,
    cost: Callable[[int, bytes], int] = lambda address, data: 5000,
) -> bytes:
    """Run code to its RETURN; return the data. Anything outside the subset is an error.

    A call that costs more than it is given fails with all of that spent, as on the real machine.
    """
    targets = _jump_targets(code)
    stack: list[int] = []
    memory = _Memory()
    returned = b""
    at = steps = 0

    def copy(source: bytes) -> None:
        to, start, size = stack.pop(), stack.pop(), stack.pop()
        memory.reach(to + size)
        memory[to : to + size] = source[start : start + size].ljust(size, b"\0")

    while True:
        op = code[at]
        at += 1
        steps += 1
        gas -= _STEP_GAS
        assert gas > 0, "out of gas"
        assert steps < 1_000_000
        match op:
            case 0x01:
                stack.append((stack.pop() + stack.pop()) & M256)
            case 0x02:
                stack.append((stack.pop() * stack.pop()) & M256)
            case 0x03:
                stack.append((stack.pop() - stack.pop()) & M256)
            case 0x10:
                stack.append(int(stack.pop() < stack.pop()))
            case 0x15:
                stack.append(int(stack.pop() == 0))
            case 0x18:
                stack.append(stack.pop() ^ stack.pop())
            case 0x1B:
                shift, value = stack.pop(), stack.pop()
                stack.append((value << shift) & M256)
            case 0x1C:
                shift, value = stack.pop(), stack.pop()
                stack.append(value >> shift)
            case 0x36:
                stack.append(len(calldata))
            case 0x37:
                copy(calldata)
            case 0x38:
                stack.append(len(code))
            case 0x39:
                copy(code)
            case 0x3D:
                stack.append(len(returned))
            case 0x3E:
                assert stack[-2] + stack[-3] <= len(returned), "out of bounds reverts"
                copy(returned)
            case 0x50:
                stack.pop()
            case 0x51:
                start = stack.pop()
                memory.reach(start + 32)
                stack.append(int.from_bytes(memory[start : start + 32], "big"))
            case 0x52:
                start, value = stack.pop(), stack.pop()
                memory.reach(start + 32)
                memory[start : start + 32] = value.to_bytes(32, "big")
            case 0x53:
                start, value = stack.pop(), stack.pop()
                memory.reach(start + 1)
                memory[start] = value & 0xFF
            case 0x56:
                at = stack.pop()
                assert at in targets
            case 0x57:
                to, condition = stack.pop(), stack.pop()
                if condition:
                    assert to in targets
                    at = to
            case 0x5A:
                stack.append(gas)
            case 0x5B:
                pass
            case _ if 0x60 <= op <= 0x7F:
                width = op - 0x5F
                stack.append(int.from_bytes(code[at : at + width], "big"))
                at += width
            case _ if 0x80 <= op <= 0x8F:
                stack.append(stack[-(op - 0x7F)])
            case _ if 0x90 <= op <= 0x9F:
                other = -(op - 0x8F) - 1
                stack[-1], stack[other] = stack[other], stack[-1]
            case 0xF3:
                start, size = stack.pop(), stack.pop()
                memory.reach(start + size)
                return bytes(memory[start : start + size])
            case 0xFA:
                wanted, address, start, size, out, out_size = (stack.pop() for _ in range(6))
                assert (out, out_size) == (0, 0)
                memory.reach(start + size)
                data = bytes(memory[start : start + size])
                gas -= _CALL_GAS
                given, needed = min(wanted, gas - gas // 64), cost(address, data)
                if needed > given:
                    answer(address, data)
                    success, returned, needed = False, b"", given
                else:
                    success, returned = answer(address, data)
                gas -= needed
                stack.append(int(success))
            case _:
                raise AssertionError(f"opcode {op:#x} at {at - 1}")


def _jump_targets(code: bytes) -> set[int]:
    targets, at = set(), 0
    while at < len(code):
        if code[at] == 0x5B:
            targets.add(at)
        at += 1 + (code[at] - 0x5F if 0x60 <= code[at] <= 0x7F else 0)
    return targets
