"""JSON to protobuf and back, beside `google.protobuf.json_format` and grpcurl: what Fanfare sends
and what it observes must be what they make of the same.

`DISAGREEMENTS` has all that is otherwise, on purpose.
"""

import base64
import collections
import ctypes
import json
import math
import random
import subprocess

import grpc
from google.protobuf import json_format, message
from google.protobuf.internal import decoder, encoder, wire_format
from grpc_reflection.v1alpha import reflection

import every
from methods import discovered, python_server, source
from rig import GRPCURLS, LIMIT, Fanfare, Rig, reason, request, same

NAMES = list(every.SYNTAXES)
# Of a random message, as many fields.
FIELDS = 10
AT_ONCE = 100
# Where Fanfare and Python differ, by the names of the traps: what Fanfare does, and why. The mapping
# is that of protobuf.dev/programming-guides/json; numbers are those of RFC 8259, section 6.
TAKES, REFUSES, DIFFERS = "takes", "refuses", "differs"
PYTHON = "Python's own syntax, not that of the mapping"
DISAGREEMENTS = {
    ("space around digits", REFUSES): PYTHON + ": int() strips a line's end",
    ("sign or zeros before digits", REFUSES): PYTHON,
    ("other digits", REFUSES): PYTHON,
    ("number as another kind", REFUSES): PYTHON + ": a truth is a number to it",
    ("too large for a double", REFUSES): "it would become infinite",
    ("too large for a float", REFUSES): "it would become infinite",
    ("rounds to the largest float", TAKES): "it rounds to a float that there is",
    ("other names of what is no number", REFUSES): "the mapping has NaN, Infinity and -Infinity",
    ("number in a string", REFUSES): PYTHON + ": no digits before or after the point",
    ("space around a number", REFUSES): PYTHON,
    ("other number in a string", REFUSES): PYTHON,
    ("base64 of either alphabet", REFUSES): "both alphabets in one text are neither",
    ("base64 with other padding", REFUSES): "it is cut off, or goes on behind its end",
    ("base64 with bits left over", REFUSES): "they would be lost",
    ("base64 with other characters", REFUSES): "Python drops them, and decodes something else",
    ("wrapper of another kind", REFUSES): "base64 with other characters, as above",
    ("enum name in another case", TAKES): "models write it so, and it is one value only",
    ("enum number in a string", REFUSES): "the mapping has names and numbers",
    ("enum number with a point", REFUSES): "Python drops the fraction",
    ("enum number out of range", REFUSES): "Python drops bits",
    ("enum as another kind", REFUSES): PYTHON + ": a truth is a number to it",
    ("message as another kind", REFUSES): "an empty list is no message",
    ("empty message as another kind", REFUSES): "an empty list is no message",
    ("no object", REFUSES): "an empty list is no message",
    ("time without its leading zeros", REFUSES): "RFC 3339 has them",
    ("too many digits of a second", REFUSES): "Python drops what is below a nanosecond",
    ("duration in another form", REFUSES): PYTHON,
    ("duration with a sign or a bare point", REFUSES): PYTHON,
    ("mask in another form", REFUSES): "a path has a name at each of its points",
    ("mask in another form", TAKES): "models write the field's own name, a_b for aB",
    ("large number in a value", REFUSES): "a double would round it",
    ("any of an unknown type", TAKES): "its bytes can be passed on, as they are printed",
    ("any of a type without a slash", REFUSES): "a type URL has one",
    ("any of what has nothing", DIFFERS): "on the wire the empty value is there, which Python leaves out",
    ("both names of a field", REFUSES): "one of both values would be lost",
    ("key of another kind", REFUSES): PYTHON + ": a key 1.0",
    ("the same key in two forms", REFUSES): "one of both values would be lost",
    ("required is missing", REFUSES): "Python looks only when it writes the message",
}
# Fields that grpcurl 1.9.4 can't read as they are written: a mask must be an object to it, durations
# beyond 292 years are none, an `Any` must have a type,
# and neither null nor empty bytes in a wrapper can be printed.
GRPCURL_FAULTS = {"fieldmask", "duration", "any", "null", "value", "listvalue", "struct", "bytesvalue"}


class Echo:
    """The service: it echoes, keeps what arrived by its case, and answers with what it is told."""

    def __init__(self):
        self.arrived: dict[int, bytes] = {}

    def add_to(self, server) -> None:
        methods = {}
        for name in NAMES:
            kind = every.message_class(name)
            methods[f"Echo{name}"] = grpc.unary_unary_rpc_method_handler(lambda wire, _, kind=kind: self.echo(wire, kind))
            methods[f"Wire{name}"] = grpc.unary_unary_rpc_method_handler(lambda wire, _: every.message_class("Wire").FromString(wire).wire)
            methods[f"All{name}"] = grpc.stream_stream_rpc_method_handler(lambda wires, _: wires)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(every.SERVICE, methods),))

    def echo(self, wire: bytes, kind) -> bytes:
        self.arrived[kind.FromString(wire).case_number] = wire
        return wire


def mapped(rig: Rig, peer: str, count: int = 600) -> None:
    """Random messages of every kind of field, and what is read in more than one way."""
    descriptors = every.compiled(rig.folder)
    echo = Echo()
    names = [every.SERVICE] if peer == "reflection" else []
    with python_server(echo.add_to, names=names) as port:
        keys = [] if names else [f'descriptors = "{descriptors}"']
        fanfare = rig.serve(source(port, *keys, expose='["every.v1.Every/*"]'))
        discovered(fanfare, *(f"{verb}_{name.lower()}" for verb in ("echo", "wire") for name in NAMES))
        random_messages(fanfare, echo, count)
        if peer != "reflection":
            traps(fanfare, echo)
            wires(fanfare, count)
            beside_grpcurl(fanfare, port)


def execute(fanfare: Fanfare, calls: list[dict]) -> list[dict]:
    """The results of as many calls as there are."""
    results = []
    for start in range(0, len(calls), AT_ONCE):
        results += fanfare.execute(calls[start : start + AT_ONCE])
    return results


def random_messages(fanfare: Fanfare, echo: Echo, count: int) -> None:
    cases = []
    for number in range(1, count + 1):
        name = NAMES[number % 3]
        kind = every.message_class(name)
        fields = every.Random(number).message(kind.DESCRIPTOR, FIELDS)
        cases.append((name, {**fields, "case_number": number}))
    calls = [call_of(name, json.dumps(fields)) for name, fields in cases]
    for (name, fields), result in zip(cases, execute(fanfare, calls)):
        wanted = json_format.ParseDict(fields, every.message_class(name)())
        problem = difference(result, wanted) or wire_difference(echo.arrived, wanted)
        assert not problem, f"{problem}\n{json.dumps(fields)}\n{str(result)[:3000]}"


def call_of(name: str, text: str) -> dict:
    return {"name": f"echo_{name.lower()}", "argumentsJson": text}


def difference(result: dict, wanted) -> str:
    """What the observation is, that json_format does not print of the message; empty if nothing."""
    if "observation" not in result:
        return f"{reason(result)}: {result['error']['message']} {result['error']['details'][1:]}"
    return unlike(result["observation"], json_format.MessageToDict(wanted))


def unlike(found, wanted, path: str = "") -> str:
    """Where two values of JSON differ; empty if they don't."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        if found.keys() != wanted.keys():
            return f"{path}: {sorted(found.keys() ^ wanted.keys())}"
        return next(filter(None, (unlike(found[key], wanted[key], f"{path}.{key}") for key in wanted)), "")
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return next(filter(None, (unlike(*pair, f"{path}[{n}]") for n, pair in enumerate(zip(found, wanted)))), "")
    number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    if number(found) and number(wanted):
        # Python prints at least 6 digits of a float, where fewer may do.
        equal = found == wanted or len(f"{found:.15g}") <= len(f"{wanted:.15g}") and as_float(found) == as_float(wanted)
        return "" if equal and math.copysign(1, found) == math.copysign(1, wanted) else f"{path}: {found!r}, not {wanted!r}"
    return "" if type(found) is type(wanted) and found == wanted else f"{path}: {found!r}, not {wanted!r}"


def as_float(number: float) -> float:
    return ctypes.c_float(number).value


def wire_difference(arrived: dict[int, bytes], wanted) -> str:
    """How what the service got differs from what Python sends; empty if not at all."""
    wire = arrived.get(wanted.case_number)
    if wire is None:
        return "nothing arrived"
    as_python = type(wanted).FromString(wire).SerializePartialToString(deterministic=True)
    expected = wanted.SerializePartialToString(deterministic=True)
    if as_python != expected:
        return f"on the wire: {wire!r}, not {expected!r}"
    # The same, but for the order.
    return "" if len(wire) == len(expected) else f"on the wire {len(wire)} bytes, not {len(expected)}: {wire!r}, not {expected!r}"


def traps(fanfare: Fanfare, echo: Echo) -> None:
    """All that `every.TRAPS` has; whatever Python does with it, Fanfare does, or `DISAGREEMENTS` says why not."""
    cases, calls = list(every.trapped()), []
    for number, (_, name, text) in enumerate(cases, 10_000):
        # As it must arrive at the right place, each has its number, if it is an object at all.
        numbered = f'{{"case_number": {number}{"" if text.strip() == "{}" else ","}{text[1:]}' if text.startswith("{") and text != "{" else text
        calls.append(call_of(name, numbered))
    found = collections.defaultdict(list)
    for (trap, name, text), call, result in zip(cases, calls, execute(fanfare, calls)):
        kind, problem = every.message_class(name), ""
        try:
            wanted = json_format.Parse(call["argumentsJson"], kind())
            printed = json_format.MessageToDict(wanted)
        except Exception as error:  # Python has several kinds
            if "observation" in result:
                found[trap, TAKES].append((text, str(error)[:100]))
            else:
                same(f"reason for {text}", reason(result), "INVALID_ARGUMENTS")
            continue
        if reason(result) == "INVALID_ARGUMENTS":
            found[trap, REFUSES].append((text, result["error"]["details"][1]["fieldViolations"]))
        elif problem := unlike(result.get("observation", result), printed) or wanted.case_number and wire_difference(echo.arrived, wanted):
            found[trap, DIFFERS].append((text, problem))
    new = {key: examples[:4] for key, examples in found.items() if key not in DISAGREEMENTS}
    assert not new, "\n".join(f"{key}: {examples}" for key, examples in new.items())
    gone = DISAGREEMENTS.keys() - found.keys()
    assert not gone, f"no longer: {gone}"


def wires(fanfare: Fanfare, count: int) -> None:
    """Messages as other encoders write them, and broken ones: what is observed is what Python reads."""
    cases = []
    for number in range(1, count + 1):
        name, shuffled = NAMES[number % 3], random.Random(number)
        kind = every.message_class(name)
        plain = json_format.ParseDict(every.Random(-number).message(kind.DESCRIPTOR, FIELDS), kind())
        wire = other_encoding(plain.SerializePartialToString(deterministic=True), kind.DESCRIPTOR, shuffled)
        if number % 7 == 0 and wire:
            wire = broken(wire, shuffled)
        cases.append((name, kind, wire))
    calls = [{"name": f"wire_{name.lower()}", "arguments": {"wire": base64.b64encode(wire).decode()}} for name, _, wire in cases]
    read = 0
    for (name, kind, wire), result in zip(cases, execute(fanfare, calls)):
        try:
            printed = json_format.MessageToDict(kind.FromString(wire))
        except message.DecodeError as error:
            same(f"{name} {wire!r}: {error}: {str(result)[:2000]}", reason(result), "INVALID_RESPONSE")
            continue
        except Exception:
            # It can be read, but Python can't print it: a time that no calendar has, say.
            continue
        if "observation" not in result and '"b\'' in json.dumps(printed):
            # Text of proto2 that is no UTF-8: Python prints how its own bytes would be written.
            continue
        read += 1
        assert "observation" in result, f"{name} {wire!r}: {result} instead of {printed}"
        problem = unlike(result["observation"], printed)
        assert not problem, f"{name} {wire!r}: {problem}"
    assert read > count * 0.8, read


def other_encoding(wire: bytes, descriptor, shuffled: random.Random) -> bytes:
    """The same message as another encoder might write it."""
    fields, position = [], 0
    while position < len(wire):
        start = position
        tag, position = decoder._DecodeVarint(wire, position)
        position = skipped(wire, position, tag)
        fields.append((tag >> 3, tag & 7, wire[start:position]))
    written = []
    for number, kind, bytes_ in fields:
        field = descriptor.fields_by_number.get(number)
        chance = shuffled.random()
        if field is not None and chance < 0.2 and not field.is_repeated and not field.containing_oneof:
            # Again, which for a message is merging with itself, and the last of others counts.
            if field.message_type is None:
                written.append((number, bytes_))
        if field is not None and field.is_repeated and field.message_type is None and kind == 2 and every.kind_of(field) not in ("string", "bytes"):
            if chance < 0.5:
                # Not packed, or packed in two parts.
                written += [(number, part) for part in unpacked(bytes_, field)]
                continue
        written.append((number, bytes_))
    # Unknown fields of each kind, in between.
    for unknown in (b"\xc0\xd7\x85\x02\x07", b"\xc2\xd7\x85\x02\x03abc", b"\xc5\xd7\x85\x02\x01\x02\x03\x04", b"\xc3\xd7\x85\x02\x08\x01\xc4\xd7\x85\x02"):
        if shuffled.random() < 0.3:
            written.insert(shuffled.randrange(len(written) + 1), (-1, unknown))
    # Fields in any order, but each one's own.
    order = list(range(len(written)))
    shuffled.shuffle(order)
    by_number = collections.defaultdict(list)
    for number, bytes_ in written:
        by_number[group(number, descriptor)].append(bytes_)
    slots = [group(written[n][0], descriptor) for n in order]
    return b"".join(by_number[slot].pop(0) for slot in slots)


def group(number: int, descriptor):
    """What must keep its order: a field, or the fields of one oneof."""
    field = descriptor.fields_by_number.get(number)
    return field.containing_oneof.name if field is not None and field.containing_oneof else number


def unpacked(bytes_: bytes, field) -> list[bytes]:
    _, position = decoder._DecodeVarint(bytes_, 0)
    length, position = decoder._DecodeVarint(bytes_, position)
    kind = {"double": 1, "fixed64": 1, "sfixed64": 1, "float": 5, "fixed32": 5, "sfixed32": 5}.get(every.kind_of(field), 0)
    tag, parts = encoder.TagBytes(field.number, kind), []
    while position < len(bytes_):
        end = skipped(bytes_, position, kind)
        parts.append(tag + bytes_[position:end])
        position = end
    return parts


def skipped(wire: bytes, position: int, tag: int) -> int:
    """Where a value ends that begins there."""
    match tag & 7:
        case 0:
            return decoder._DecodeVarint(wire, position)[1]
        case 1:
            return position + 8
        case 2:
            length, position = decoder._DecodeVarint(wire, position)
            return position + length
        case 5:
            return position + 4
        case 3:
            while True:
                inner, position = decoder._DecodeVarint(wire, position)
                if inner & 7 == 4:
                    return position
                position = skipped(wire, position, inner)
    raise AssertionError(tag)


def broken(wire: bytes, shuffled: random.Random) -> bytes:
    wire = bytearray(wire)
    wire[shuffled.randrange(len(wire))] = shuffled.randrange(256)
    return bytes(wire)


def beside_grpcurl(fanfare: Fanfare, port: int, count: int = 60) -> None:
    """The same messages through grpcurl, which is protobuf for Go: it observes the same."""
    for name in NAMES:
        kind = every.message_class(name)
        messages = [every.Random(10_000 + n, GRPCURL_FAULTS).message(kind.DESCRIPTOR, FIELDS) for n in range(count)]
        # As everybody writes them: 5.0 is no integer to it.
        messages = [json_format.MessageToDict(json_format.ParseDict(message, kind())) for message in messages]
        results = execute(fanfare, [call_of(name, json.dumps(m)) for m in messages])
        stream = "".join(map(json.dumps, messages))
        command = [GRPCURLS["new"], "-plaintext", "-protoset", str(fanfare.rig.folder / "every.binpb"), "-d", "@"]
        done = subprocess.run([*command, f"127.0.0.1:{port}", f"{every.SERVICE}/All{name}"], input=stream, capture_output=True, text=True, timeout=LIMIT)
        answers, rest = [], done.stdout
        while rest := rest.strip():
            answer, end = json.JSONDecoder().raw_decode(rest)
            answers.append(answer)
            rest = rest[end:]
        assert len(answers) == count and not done.stderr, (len(answers), done.stderr)
        for message, result, answer in zip(messages, results, answers):
            problem = unlike(without_signs(result.get("observation")), without_signs(answer))
            assert not problem, f"{name} {json.dumps(message)}: {problem}"


def without_signs(value):
    """grpcurl drops the sign of zero."""
    if isinstance(value, list):
        return [without_signs(item) for item in value]
    if isinstance(value, dict):
        return {key: without_signs(item) for key, item in value.items()}
    return 0 if isinstance(value, float) and value == 0 else value


SCENARIOS = [(mapped, ["set", "reflection"], {"count": 10_000})]
