"""Mutations of requests: of messages by their fields, of JSON by its values, of HTTP by its parts, and of bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tests.drills.server.seeds import REQUESTS, Case

MAX_BYTES: Final = 2**20  # of a mutated request
NUMBERS: Final = (
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    65,
    127,
    128,
    255,
    256,
    2**15,
    2**24,
    2**31 - 1,
    2**31,
    2**32,
    2**62,
    2**63 - 1,
)
WORDS: Final = (
    *("", "x", "a", "half", "types", "text", "serving_default", "classify", "regress", "inputs", "signature_def", "\0"),
    *("ü", "💥", "n" * 3000, "../..", "%s", "{}", "stable", "tensorflow/serving/regress", "float32", "string"),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1.5, 2**63, 2**64, 10**30, 1e308, float("nan"), float("inf"), "", "x", "ü", "\ud800"),
    *([], {}, [[]], [1, [2]], {"b64": "YQ"}, {"b64": 1}, {"b64": "?"}, {"x": 1}, [None], ["a", 1], "n" * 3000),
)
CHUNKS: Final = (
    *(
        b"\0",
        b"\xff",
        b"\r\n",
        b"\r\n\r\n",
        b"{",
        b"[",
        b'"',
        b"\\",
        b"\\u",
        b":",
        b"/",
        b"%00",
        b"[" * 2000,
        b"9" * 5000,
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"\x80" * 11),
)


def mutated(case: Case, others: Sequence[Case], random: Random) -> Case:
    """Return a changed request; parts of it may come from the others."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if case.method:
            case = Case(case.method, _grpc(case, others, random))
        else:
            case = Case("", _http(case.content, others, random))
    return Case(case.method, case.content[:MAX_BYTES])


def _grpc(case: Case, others: Sequence[Case], random: Random) -> bytes:
    if random.random() < 0.15:
        return _bytes(case.content, others, random)
    message = REQUESTS[case.method]()
    try:
        message.MergeFromString(case.content)
    except DecodeError:
        return _bytes(case.content, others, random)
    _field(random.choice(list(_messages(message))), random)
    return bytes(message.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
                for inner in list(value.values())[:20]:
                    yield from _messages(inner)
        elif field.is_repeated:
            for inner in list(value)[:20]:
                yield from _messages(inner)
        else:
            yield from _messages(value)


def _field(message: Message, random: Random) -> None:
    """Change a random field; invalid text is simply not set."""
    if not message.DESCRIPTOR.fields:
        return
    field = random.choice(message.DESCRIPTOR.fields)
    if random.random() < 0.15:
        message.ClearField(field.name)
        return
    current = getattr(message, field.name)
    try:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                _map_entry(field, current, random)
            elif field.is_repeated:
                times = random.choice((1, 1, 2, 70)) if len(current) < 500 else 1
                for _ in range(times):
                    current.add().CopyFrom(random.choice(current)) if len(current) > 1 else current.add()
            else:
                current.SetInParent()
        elif field.is_repeated:
            current.extend([_scalar(field, random)] * random.choice((1, 1, 2, 70, 1000)))
        else:
            setattr(message, field.name, _scalar(field, random))
    except (ValueError, TypeError):
        pass


def _map_entry(field: FieldDescriptor, current: Any, random: Random) -> None:
    key = random.choice([*list(current)[:5], random.choice(WORDS)])
    if field.message_type.fields_by_name["value"].type != FieldDescriptor.TYPE_MESSAGE:
        current[key] = random.choice(NUMBERS)
    elif current:
        current[key].CopyFrom(random.choice(list(current.values())))
    else:
        current[key].SetInParent()


def _scalar(field: FieldDescriptor, random: Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        word = random.choice(WORDS)
        return word if field.type == FieldDescriptor.TYPE_STRING else word.encode()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice((*range(26), 101, 999))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    number = random.choice(NUMBERS) * random.choice((1, 1, 1, -1))
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice((float(number), float("nan"), float("inf"), 1e-320))
    return number


def _http(content: bytes, others: Sequence[Case], random: Random) -> bytes:
    head, separator, body = content.partition(b"\r\n\r\n")
    if not separator or random.random() < 0.15:
        return _bytes(content, others, random)
    lines = head.split(b"\r\n")
    choice = random.random()
    if body and choice < 0.6:
        body = _json(body, random) if random.random() < 0.7 else _bytes(body, others, random)
    elif choice < 0.75:
        lines[0] = _bytes(lines[0], others, random)
    elif choice < 0.85:
        lines.insert(random.randint(1, len(lines)), random.choice(CHUNKS).rstrip(b"\r\n"))
    elif choice < 0.9:
        body, lines = gzip.compress(body), [*lines, b"Content-Encoding: gzip"]
    elif choice < 0.95:  # two requests on one connection
        return content + random.choice([case for case in others if not case.method]).content
    else:
        size = b"%x\r\n" % len(body)
        lines = [line for line in lines if not line.lower().startswith(b"content-length")]
        return b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + size + body + b"\r\n0\r\n\r\n"
    if random.random() < 0.9:  # else the length is wrong
        length = b"Content-Length: %d" % len(body)
        lines = [length if line.lower().startswith(b"content-length:") else line for line in lines]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _json(body: bytes, random: Random) -> bytes:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return _bytes(body, (), random)
    places: list[tuple[Any, Any]] = []
    stack = [document]
    while stack and len(places) < 1000:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        stack += [node[key] for key in keys]
    if not places:
        return json.dumps(random.choice(VALUES)).encode()
    node, key = random.choice(places)
    choice = random.random()
    if choice < 0.5:
        node[key] = random.choice(VALUES)
    elif choice < 0.6:
        node[key] = [node[key]] * random.choice((0, 1, 2, 300))
    elif choice < 0.7:
        for _ in range(random.choice((1, 3, 64, 70, 500))):
            node[key] = [node[key]]
    elif choice < 0.8:
        del node[key]
    elif isinstance(node, dict):
        node[random.choice(WORDS)] = node[key]
    else:
        node.insert(0, random.choice(VALUES))
    try:
        return json.dumps(document).encode()
    except RecursionError:
        return _bytes(body, (), random)


def _bytes(content: bytes, others: Sequence[Case], random: Random) -> bytes:
    start = random.randint(0, len(content))
    end = min(len(content), start + random.choice((0, 1, 1, 2, 8, 100)))
    inserts: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: random.randbytes(random.choice((1, 1, 2, 4, 16))),
        lambda: random.choice(CHUNKS),
        lambda: content[start:end] * random.choice((2, 10, 1000)),
        lambda: random.choice(others).content[:1000] if others else b"",
    )
    if random.random() < 0.05:
        return content[:start]
    return content[:start] + random.choice(inserts)() + content[end:]
