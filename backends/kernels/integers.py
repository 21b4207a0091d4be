"""C++ from functions of core/ on words: they are run on names, and every operation becomes a line of code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessiod.core.philox import philox4x32


class Word:
    """An unsigned number of 64 bits in generated code."""

    def __init__(self, lines: list[str], name: str) -> None:
        self.lines, self.name = lines, name

    def write(self, operator: str, *inputs: Any) -> Word:
        """The line of an operation, and the name of its result."""
        given = [value.name if isinstance(value, Word) else f"{value}ULL" for value in inputs]
        result = Word(self.lines, f"v{len(self.lines)}")
        self.lines.append(f"const std::uint64_t {result.name} = {f' {operator} '.join(given)};")
        return result

    def __add__(self, other: Any) -> Word:
        return self.write("+", self, other)

    def __mul__(self, other: Any) -> Word:
        return self.write("*", self, other)

    __rmul__ = __mul__

    def __and__(self, other: Any) -> Word:
        return self.write("&", self, other)


def operation(operator: str) -> Callable[[Word, Any], Word]:
    """A function of ``xp`` that is one operator in C++."""
    return lambda word, other: word.write(operator, word, other)


class WordNamespace:
    """The ``xp`` of functions on words."""

    bitwise_and, bitwise_xor = staticmethod(operation("&")), staticmethod(operation("^"))
    shift_left, shift_right = staticmethod(operation("<<")), staticmethod(operation(">>"))


def philox_source() -> str:
    """``hessiod_philox``: :func:`hessiod.core.philox.philox4x32`.

    >>> print(philox_source().splitlines()[7].strip())
    const std::uint64_t v0 = c0 & 65535ULL;
    """
    lines = list[str]()
    counter = [Word(lines, f"c{place}") for place in range(4)]
    key = [Word(lines, f"k{place}") for place in range(2)]
    results = philox4x32(WordNamespace(), counter, key)
    stores = [f"out[4 * i + {place}] = {word.name};" for place, word in enumerate(results)]
    return PHILOX.format(body="\n    ".join([*lines, *stores]))


PHILOX = """\
// Four words for each of n blocks.
extern "C" void hessiod_philox(Index n, const std::uint64_t* block, std::uint64_t c1, std::uint64_t c2,
                               std::uint64_t c3, std::uint64_t k0, std::uint64_t k1, std::uint64_t* out,
                               Index threads) {{
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1 && n > TASK)
  for (Index i = 0; i < n; ++i) {{
    const std::uint64_t c0 = block[i];
    {body}
  }}
}}
"""
