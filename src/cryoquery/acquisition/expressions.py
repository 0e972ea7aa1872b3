"""Strategies written as expressions: names, numbers, keyword arguments and calls, and nothing else.

``mix((0.7, power(foreground(mutual_information), beta=(1, 100))), (0.3, k_means))`` is read with `ast`
and put together from a vocabulary; nothing of it is ever evaluated as code.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from cryoquery.acquisition.candidates import ImageScore, Strategy
from cryoquery.acquisition.image_scores import PixelScore
from cryoquery.errors import ConfigError

Word = Callable[..., "PixelScore | ImageScore | Strategy"]
KINDS: Mapping[type, str] = {
    PixelScore: "a pixel score, such as entropy",
    ImageScore: "an image score, such as mean(entropy)",
    Strategy: "a selection, such as top(mean(entropy))",
}
MAX_LENGTH = 2000


def read(text: str, words: Mapping[str, Word]) -> Any:
    """What an expression stands for: a `PixelScore`, an `ImageScore` or a `Strategy`.

    Raises:
        ConfigError: it is no expression, or has an unknown name (the nearest known one is named), or
            an argument that does not fit.
    """
    try:
        if len(text) > MAX_LENGTH:
            raise _NotReadableError(f"longer than {MAX_LENGTH} characters")
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body, words)
    except _NotReadableError as error:
        raise ConfigError(f"{text[:MAX_LENGTH]!r}: {error}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(
            f"{text[:200]!r}: cannot be read; write calls of names, such as top(mean(entropy))"
        ) from None


def read_as(kind: type, text: str, words: Mapping[str, Word]) -> Any:
    """As `read`, but of one kind only.

    Raises:
        ConfigError: as `read`, or it is of another kind.
    """
    value = read(text, words)
    if not isinstance(value, kind):
        raise ConfigError(f"{text!r}: is {_kind_of(value)}; expected {KINDS[kind]}")
    return value


class _NotReadableError(Exception):
    """What is wrong with an expression, in words."""


def _value(node: ast.expr, words: Mapping[str, Word]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(elts=elements):
            return tuple(_value(element, words) for element in elements)
        case ast.Name(id=name):
            return _call(name, [], {}, words)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            named = {keyword.arg or "**": keyword.value for keyword in keywords}
            if len(named) < len(keywords) or "**" in named:
                raise _NotReadableError(f"{name}: an argument is given twice, or with **")
            values = [_value(argument, words) for argument in arguments]
            return _call(name, values, {key: _value(value, words) for key, value in named.items()}, words)
    raise _NotReadableError(f"{ast.unparse(node)!r} is neither a name, a number, a text, a tuple nor a call")


def _call(name: str, arguments: list[Any], named: Mapping[str, Any], words: Mapping[str, Word]) -> Any:
    if name not in words:
        near = difflib.get_close_matches(name, words, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(words))}"
        raise _NotReadableError(f"{name!r}: unknown name; {known}")
    try:
        return _checked(words[name])(*arguments, **named)
    except ValidationError as error:
        raise _NotReadableError(f"{name}: {_explained(words[name], error)}") from None
    except ValueError as error:
        raise _NotReadableError(f"{name}: {error}") from None


@cache
def _checked(word: Word) -> Word:
    return validate_call(config=ConfigDict(strict=True, allow_inf_nan=False))(word)


def _explained(word: Word, error: ValidationError) -> str:
    parameters = list(inspect.signature(word).parameters)
    first = error.errors()[0]
    place = first["loc"][0] if first["loc"] else 0
    parameter = parameters[place] if isinstance(place, int) and place < len(parameters) else place
    if first["type"] in ("missing_argument", "missing_positional_only_argument"):
        return f"{parameter} is missing"
    if first["type"] in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        extra = place if isinstance(place, str) else first["input"]
        return f"takes {', '.join(parameters) or 'nothing'}; {extra!r} does not fit"
    wanted = [one for one in error.errors() if one["type"] == "is_instance_of"]
    for kind, words in KINDS.items():
        if wanted and wanted[0]["ctx"]["class"] == kind.__name__:
            return f"{parameter} must be {words}, not {_kind_of(first['input'])}"
    return f"{parameter}={first['input']!r}: {first['msg']}"


def _kind_of(value: Any) -> str:
    kind = KINDS.get(type(value))
    return kind.split(",")[0] if kind else repr(value)
