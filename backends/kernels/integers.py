"""C++ from functions of core/ on words: they are run on names, and every operation becomes a line of code.

Some end in a float32 number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from hessiod.core.philox import philox4x32, uniform_from


class Variable:
    """A number in generated code."""

    kind = ""

    def __init__(self, lines: list[str], name: str) -> None:
        self.lines, self.name = lines, name

    @classmethod
    def written(cls, lines: list[str], expression: str) -> Self:
        """The line of an operation, and the name of its result."""
        result = cls(lines, f"v{len(lines)}")
        lines.append(f"const {cls.kind} {result.name} = {expression};")
        return result


class Real(Variable):
    """One in float32."""

    kind = "float"

    def __mul__(self, constant: float) -> Real:
        return self.written(self.lines, f"{self.name} * {constant.hex()}f")


class Word(Variable):
    """An unsigned one of 64 bits."""

    kind = "std::uint64_t"

    def write(self, operator: str, *inputs: Any) -> Word:
        """The line of an operator."""
        given = [value.name if isinstance(value, Word) else f"{value}ULL" for value in inputs]
        return self.written(self.lines, f" {operator} ".join(given))

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
    float32 = Real

    @staticmethod
    def astype(word: Word, kind: type[Real]) -> Real:
        """A word that is less than 2^31 as another number: of signed ones processors have a faster conversion."""
        return kind.written(word.lines, f"{kind.kind}(std::int32_t({word.name}))")


def philox_source() -> str:
    """``hessiod_philox``, :func:`hessiod.core.philox.philox4x32`, and ``hessiod_uniforms``, the same as numbers.

    >>> print(philox_source().splitlines()[7].strip())
    const std::uint64_t v0 = c0 & 65535ULL;
    """
    return "\n".join([generator(PHILOX, lambda word: word), generator(UNIFORMS, partial(uniform_from, WordNamespace))])


def generator(form: str, last: Callable[[Word], Variable]) -> str:
    """A function of the generator, in whose form ``last`` of every word is stored."""
    lines = list[str]()
    counter = [Word(lines, f"c{place}") for place in range(4)]
    key = [Word(lines, f"k{place}") for place in range(2)]
    results = list(map(last, philox4x32(WordNamespace(), counter, key)))
    stores = [f"out[4 * i + {place}] = {result.name};" for place, result in enumerate(results)]
    return form.format(body="\n    ".join([*lines, *stores]))


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

UNIFORMS = """\
// Four numbers in [0, 1) for each of n blocks, from a first one on.
extern "C" void hessiod_uniforms(Index n, std::uint64_t first, std::uint64_t c1, std::uint64_t c2, std::uint64_t c3,
                                 std::uint64_t k0, std::uint64_t k1, float* out, Index threads) {{
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : threads > 1 && n > TASK)
  for (Index i = 0; i < n; ++i) {{
    const std::uint64_t c0 = first + std::uint64_t(i);
    {body}
  }}
}}
"""
