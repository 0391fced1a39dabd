"""Messages with every kind of field, as proto2, proto3 and edition 2023; random ones of them as
JSON; and JSON that is wrong, or that is read in more than one way."""

import base64
import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

from google.protobuf import (
    any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, empty_pb2, field_mask_pb2, message_factory, struct_pb2, timestamp_pb2, wrappers_pb2,
)  # fmt: skip  # they are looked up by name
from google.protobuf.descriptor import FieldDescriptor

INTEGERS = {
    "int32": (-(2**31), 2**31 - 1), "sint32": (-(2**31), 2**31 - 1), "sfixed32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1), "fixed32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1), "sint64": (-(2**63), 2**63 - 1), "sfixed64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1), "fixed64": (0, 2**64 - 1),
}  # fmt: skip
SCALARS = [*INTEGERS, "double", "float", "bool", "string", "bytes"]
KEYS = [*INTEGERS, "bool", "string"]
WRAPPERS = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"]
KNOWN = ["Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Any", "Empty", *(f"{w}Value" for w in WRAPPERS)]
FILES = ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"]
# What each syntax has to say of a field that is there or not, and of a file.
SYNTAXES = {
    "Two": ('syntax = "proto2";', "optional "),
    "Three": ('syntax = "proto3";', ""),
    "Edition": ('edition = "2023"; option features.field_presence = IMPLICIT;', ""),
}
SERVICE = "every.v1.Every"


def proto(name: str) -> str:
    """The text of a file with the message `name`."""
    syntax, label = SYNTAXES[name]
    lines, number = [], 0

    def field(kind: str, called: str, label: str = label, options: str = "") -> None:
        nonlocal number
        number += 1
        lines.append(f"  {label}{kind} {called} = {number}{options};")

    kinds = [*SCALARS, f"Kind{name}", f"Leaf{name}", *(f"google.protobuf.{known}" for known in KNOWN)]
    for kind in kinds:
        called = kind.rsplit(".", 1)[-1].removesuffix(name).lower()
        field(kind, f"one_{called}")
        field(kind, f"many_{called}", "repeated ")
        field(f"map<string, {kind}>", f"map_{called}", "")
        if name == "Three" and kind in SCALARS + [f"Kind{name}"]:
            field(kind, f"maybe_{called}", "optional ")
            field(kind, f"apart_{called}", "repeated ", "" if kind in ("string", "bytes") else " [packed = false]")
        if name == "Two" and kind in SCALARS:
            field(kind, f"packed_{called}", "repeated ", "" if kind in ("string", "bytes") else " [packed = true]")
        if name == "Edition" and kind in SCALARS:
            field(kind, f"maybe_{called}", "", " [features.field_presence = EXPLICIT]")
            field(kind, f"apart_{called}", "repeated ", "" if kind in ("string", "bytes") else " [features.repeated_field_encoding = EXPANDED]")
    for key in KEYS:
        field(f"map<{key}, Leaf{name}>", f"by_{key}", "")
    lines.append("  oneof choice {")
    for kind in kinds:
        field(kind, f"choice_{kind.rsplit('.', 1)[-1].removesuffix(name).lower()}", "  ")
    lines.append("  }")
    field("google.protobuf.NullValue", "one_null")
    field(name, "one_self")
    field(name, "many_self", "repeated ")
    for called in "camelCase", "with_1_digit", "double__line", "_before", "after_", "UPPER_CASE":
        field("int32", called)
    field("int32", "renamed", label, ' [json_name = "@other name"]')
    if name == "Two":
        number += 1
        lines.append(f"  optional group Group = {number} {{ optional int32 inside = 1; repeated int64 deep = 2; }}")
        number += 1
        lines.append(f"  repeated group Groups = {number} {{ optional string inside = 1; }}")
        field("string", "with_default", "optional ", ' [default = "x"]')
        field("Needs", "needs", "optional ")
        lines.append("  extensions 10000 to 10100;")
    if name == "Edition":
        field("Leaf" + name, "delimited", "", " [features.message_encoding = DELIMITED]")
        field("Leaf" + name, "many_delimited", "repeated ", " [features.message_encoding = DELIMITED]")
        field("Closed", "one_closed", "", " [features.field_presence = EXPLICIT]")
        field("Closed", "many_closed", "repeated ")
        field("string", "any_bytes", "", " [features.utf8_validation = NONE]")
        field("Needs", "needs", "")
    label_of_number = "optional " if name == "Two" else ""
    lines.append(f"  {label_of_number}int32 case_number = 536870911;")
    body = "\n".join(lines)
    other = {
        "Two": "message Needs { required int32 here = 1; }\nextend Two { optional int32 extra = 10001; repeated LeafTwo extras = 10002; }",
        "Three": "",
        "Edition": "message Needs { int32 here = 1 [features.field_presence = LEGACY_REQUIRED]; }\n"
        "enum Closed { option features.enum_type = CLOSED; CLOSED_ZERO = 0; CLOSED_ONE = 1; }",
    }[name].replace("Needs", f"Needs{name}")
    body = body.replace("Needs ", f"Needs{name} ")
    imports = "".join(f'import "google/protobuf/{file}.proto";\n' for file in FILES)
    return (
        f"{syntax}\npackage every.v1;\n{imports}message {name} {{\n{body}\n}}\n"
        f"message Leaf{name} {{ {label}int32 number = 1; {label}string text = 2; map<string, Leaf{name}> more = 3; }}\n"
        f"enum Kind{name} {{ option allow_alias = true; {name.upper()}_ZERO = 0; {name.upper()}_ONE = 1; {name.upper()}_UNO = 1; "
        f"{name.upper()}_LARGE = 2147483647; {name.upper()}_LESS = -3; }}\n{other}\n"
    )


def service() -> str:
    """The text of the file with the service: it echoes, or answers with the bytes that it gets."""
    methods = "".join(
        f"  rpc Echo{name}({name}) returns ({name});\n  rpc Wire{name}(Wire) returns ({name});\n"
        f"  rpc All{name}(stream {name}) returns (stream {name});\n"
        for name in SYNTAXES
    )
    imports = "".join(f'import "every_{name.lower()}.proto";\n' for name in SYNTAXES)
    return f'syntax = "proto3";\npackage every.v1;\n{imports}message Wire {{ bytes wire = 1; }}\nservice Every {{\n{methods}}}\n'


def compiled(folder: Path) -> Path:
    """A descriptor set of it all, with imports; the messages are known to `protobuf` then, too."""
    for name in SYNTAXES:
        (folder / f"every_{name.lower()}.proto").write_text(proto(name))
    (folder / "every.proto").write_text(service())
    found = folder / "every.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", "--include_imports"]
    done = subprocess.run([*command, f"--descriptor_set_out={found}", "every.proto"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for file in descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes()).file:
        if not file.name.startswith("google/"):
            descriptor_pool.Default().Add(file)
    return found


def message_class(name: str):
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"every.v1.{name}"))


class Random:
    """Random JSON for messages, in all the forms that the mapping allows; the same of the same seed."""

    def __init__(self, seed: int, without=()):
        self.random, self.without = random.Random(seed), without

    def message(self, descriptor, fields: int, depth: int = 0) -> dict:
        chosen = [f for f in descriptor.fields if f.name != "case_number" and f.name.rsplit("_", 1)[-1] not in self.without]
        result, oneofs = {}, set()
        sample = self.random.sample(chosen, min(fields, len(chosen)))
        for field in [*sample, *(f for f in chosen if f.is_required and f not in sample)]:
            if field.containing_oneof and field.containing_oneof.name in oneofs:
                continue
            if field.containing_oneof:
                oneofs.add(field.containing_oneof.name)
            name = field.json_name if self.random.random() < 0.7 else field.name
            result[name] = self.field(field, depth)
        return result

    def field(self, field, depth: int):
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            count = self.random.randrange(4)
            pairs = [(self.key(key), self.value(value, depth)) for _ in range(count)]
            # Each key once, however it is written.
            return dict({str(k).lower(): (k, v) for k, v in pairs}.values())
        if field.is_repeated:
            return [self.value(field, depth) for _ in range(self.random.randrange(5))]
        if self.random.random() < 0.03 and not field.is_required:
            return None
        return self.value(field, depth)

    def key(self, field) -> str:
        kind = kind_of(field)
        if kind == "string":
            return self.text()
        if kind == "bool":
            return self.random.choice(["true", "false"])
        return str(self.integer(kind))

    def value(self, field, depth: int):
        kind = kind_of(field)
        if kind in INTEGERS:
            number = self.integer(kind)
            form = self.random.random()
            if form < 0.3 or abs(number) > 2**53:
                return str(number)
            return float(number) if form < 0.4 else number
        if kind in ("double", "float"):
            return self.double(kind)
        if kind == "bool":
            return self.random.random() < 0.5
        if kind == "string":
            return self.text()
        if kind == "bytes":
            return self.bytes()
        if kind == "enum":
            value = self.random.choice(field.enum_type.values)
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return None if self.random.random() < 0.5 else "NULL_VALUE"
            return value.name if self.random.random() < 0.6 else value.number
        if kind == "message":
            return self.known(field.message_type, depth)
        raise AssertionError(kind)

    def integer(self, kind: str) -> int:
        least, most = INTEGERS[kind]
        near = [0, 1, -1, 127, 128, 255, 2**31 - 1, 2**31, 2**53 - 1, 2**53 + 1, least, most, least + 1, most - 1]
        number = self.random.choice([*near, self.random.randint(least, most), self.random.randint(-200, 200)])
        return min(max(number, least), most)

    def double(self, kind: str):
        extremes = [0, 0.5, -0.0, 1e-5, 0.1, 1 / 3, 1e15, 123456789, 16777217, 3.4028234e38, 1.401298464324817e-45, 1e-46]
        extremes += ["NaN", "Infinity", "-Infinity", "1.5", "-2e3", 1e21]
        if kind == "double":
            extremes += [1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 9007199254740993.0, 1e300]
        return self.random.choice([*extremes, self.random.uniform(-1e6, 1e6)])

    def text(self) -> str:
        texts = ["", "a", "Zürich", "\u0000", '"\\/\b\f\n\r\t', "\u2028", "😀", "é", "\ufeff", "null", "x" * 200]
        return self.random.choice([*texts, "".join(chr(self.random.randrange(32, 0x2FF)) for _ in range(self.random.randrange(8)))])

    def bytes(self) -> str:
        raw = self.random.randbytes(self.random.randrange(12))
        encode = self.random.choice([base64.b64encode, base64.urlsafe_b64encode])
        text = encode(raw).decode()
        return text if self.random.random() < 0.7 else text.rstrip("=")

    def known(self, descriptor, depth: int):
        name = descriptor.full_name.removeprefix("google.protobuf.")
        pick = self.random.choice
        if name == descriptor.full_name:
            return self.message(descriptor, self.random.randrange(4) if depth < 4 else 0, depth + 1)
        if name.endswith("Value") and name not in ("Value", "ListValue"):
            return self.value(descriptor.fields_by_name["value"], depth)
        if name == "Timestamp":
            return pick([
                "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2024-02-29T12:34:56.7Z",
                "2026-11-27T20:00:00+05:30", "2026-11-27T20:00:00.000001-08:00", "1969-12-31T23:59:59.5Z", "2000-01-01T00:00:00.123456789Z",
            ])  # fmt: skip
        if name == "Duration":
            return pick(["0s", "1s", "-1s", "1.5s", "-0.5s", "0.000000001s", "315576000000s", "-315576000000s", "3.000000001s", "-1.000001s", "1.10s"])
        if name == "FieldMask":
            return pick(["", "a", "fooBar", "a.b,cD.eF", "fooBar.baz,x"])
        if name == "Empty":
            return {}
        if name == "Any":
            leaf = pick(["Three", "Two", "Edition"])
            return pick([
                {}, {"@type": f"type.googleapis.com/every.v1.Leaf{leaf}", "number": 5, "text": self.text()},
                {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.5s"},
                {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": [1, None]}},
                {"@type": "type.googleapis.com/google.protobuf.Int64Value", "value": "-9223372036854775808"},
                {"@type": "example.com/some/path/google.protobuf.Any", "value": {"@type": f"/every.v1.Leaf{leaf}", "text": "deep"}},
            ])  # fmt: skip
        any_json = lambda depth: pick([None, True, False, 0, -1.5, 1e300, self.text(), *([[], {}] if depth > 3 else [
            [any_json(depth + 1) for _ in range(self.random.randrange(3))], {self.text(): any_json(depth + 1) for _ in range(self.random.randrange(3))}
        ])])  # fmt: skip
        match name:
            case "Value":
                return any_json(0)
            case "ListValue":
                return [any_json(1) for _ in range(self.random.randrange(3))]
            case "Struct":
                return {self.text(): any_json(1) for _ in range(self.random.randrange(3))}
        raise AssertionError(name)


KINDS = {getattr(FieldDescriptor, f"TYPE_{kind.upper()}"): kind for kind in [*SCALARS, "enum", "message"]}
KINDS[FieldDescriptor.TYPE_GROUP] = "message"


def kind_of(field) -> str:
    return KINDS[field.type]


@dataclasses.dataclass(frozen=True)
class Trap:
    """A value that mappings read in more than one way, or that is wrong, for fields of these kinds."""

    name: str
    kinds: tuple[str, ...]
    values: tuple


def trap(name: str, kinds, *values) -> Trap:
    return Trap(name, (kinds,) if isinstance(kinds, str) else tuple(kinds), values)


SMALL, LARGE = [k for k in INTEGERS if "32" in k], [k for k in INTEGERS if "64" in k]
UNSIGNED = [k for k in INTEGERS if INTEGERS[k][0] == 0]


class Raw(str):
    """JSON text: not all of it is a value of Python."""


TRAPS = [
    trap("whole number with a point", INTEGERS, Raw("5.0"), Raw("1e2"), Raw("10e-1")),
    trap("fraction", INTEGERS, 0.5, "0.5", Raw("1.0000000001")),
    trap("whole number in a string with a point", INTEGERS, "5.0", "1e2"),
    trap("out of range", SMALL, 2**40, str(2**40), -(2**40)),
    trap("out of range", LARGE, 2**70, str(2**70), -(2**70), Raw("1e30")),
    trap("one too many", LARGE, str(2**64), Raw(str(2**64)), Raw("18446744073709551616.0")),
    trap("negative", UNSIGNED, -1, "-1"),
    trap("negative zero", INTEGERS, Raw("-0"), "-0", Raw("-0.0")),
    trap("64 bits as a number", LARGE, 2**53 + 1, 2**62 + 1),
    trap("space around digits", INTEGERS, " 5", "5 ", "5\n"),
    trap("sign or zeros before digits", INTEGERS, "+5", "05"),
    trap("other digits", INTEGERS, "\u0665", "0x10", "1_000", ""),
    trap("number as another kind", [*INTEGERS, "double", "float"], True, [], {}, "five"),
    trap("null", [*SCALARS, "enum", "Leaf", *KNOWN], None),
    trap("too large for a double", "double", Raw("1e400"), "1e400", Raw("-1e400")),
    trap("too large for a float", "float", 1e39, "1e39", Raw("3.5e38")),
    trap("rounds to the largest float", "float", Raw("3.4028235e38"), Raw("3.40282356e38"), Raw("3.4028235677973366e38")),
    trap("too small", ["float", "double"], Raw("1e-500"), "1e-400"),
    trap("other names of what is no number", ["float", "double"], "nan", "inf", "infinity", "+Infinity", "INF", "-nan"),
    trap("number in a string", ["float", "double"], "1", "-0.5e2", "1.", ".5"),
    trap("space around a number", ["float", "double"], " 1.5", "1.5 "),
    trap("other number in a string", ["float", "double"], "0x10", "1_0", "", "1,5"),
    trap("truth as another kind", "bool", 0, 1, "true", "True", "yes", []),
    trap("text as another kind", "string", 5, True, [], {}),
    trap("half of a surrogate pair", "string", Raw(r'"\ud800"'), Raw(r'"a\udc00b"')),
    trap("pair of surrogates", "string", Raw(r'"\ud83d\ude00"')),
    trap("base64 of either alphabet", "bytes", "-_-_", "+/+/", "-_+/"),
    trap("base64 with other padding", "bytes", "YQ=", "YWI", "YQ===", "YQ==YQ=="),
    trap("base64 with bits left over", "bytes", "YR==", "YWJ="),
    trap("base64 of an impossible length", "bytes", "A", "AAAAA"),
    trap("base64 with other characters", "bytes", "YW\nI=", "Y W I=", "YW*I", "\u00e9"),
    trap("bytes as another kind", "bytes", 5, [1, 2], True),
    trap("enum name in another case", "enum", "ONE", "_one"),
    trap("enum name that is not", "enum", "NO_SUCH", ""),
    trap("enum number that has no name", "enum", 77, -99),
    trap("enum number in a string", "enum", "1", "0"),
    trap("enum number with a point", "enum", Raw("1.0"), 1.5, Raw("1e0")),
    trap("enum number out of range", "enum", 2**31, -(2**40)),
    trap("enum as another kind", "enum", True, [], {}),
    trap("message as another kind", "Leaf", 5, "x", [], True),
    trap("unknown field", "Leaf", {"nothing": 1}, {"Number": 1}, {"TEXT": "x"}),
    trap("both names, or a name twice", "Leaf", Raw('{"number": 1, "number": 2}')),
    trap("null in a message", "Leaf", {"number": None, "text": None, "more": None}),
    trap("null in a map", "Leaf", {"more": {"a": None}}),
    trap("number as text", "Leaf", {"text": 1}, {"number": "x"}),
    trap("two mistakes", "Leaf", {"text": 1, "number": "x", "more": 5}),
    trap("time in another form", "Timestamp", "2024-02-30T00:00:00Z", "2024-01-01", "2024-01-01T00:00:00", "yesterday", 5, {}),
    trap("time in lower case", "Timestamp", "2024-01-01t00:00:00z"),
    trap("time without its leading zeros", "Timestamp", "2024-1-1T0:0:0Z"),
    trap("time with a space", "Timestamp", "2024-01-01 00:00:00Z"),
    trap("leap second", "Timestamp", "2016-12-31T23:59:60Z"),
    trap("too many digits of a second", ["Timestamp", "Duration"], "2024-01-01T00:00:00.1234567891Z", "1.1234567891s"),
    trap("time out of range", "Timestamp", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
    trap("duration out of range", "Duration", "315576000001s", "-315576000001s", "99999999999999999999s"),
    trap("duration in another form", "Duration", "1", "s", "1m", 1, "1 s", "1e3s", "--1s", "infs", {}),
    trap("duration with a sign or a bare point", "Duration", "+1s", "1.s", ".5s", "-.5s"),
    trap("mask in another form", "FieldMask", "a..b", "A", "a,,b", ",", "a_b", "fooBar.", 5, ["a"], "a b"),
    trap("struct as another kind", "Struct", [], 5, "x"),
    trap("list as another kind", "ListValue", {}, 5, "x"),
    trap("large number in a value", ["Value", "ListValue", "Struct"], Raw("9007199254740993"), Raw("[9007199254740993]"), Raw('{"a": 9007199254740993}')),
    trap("empty message with fields", "Empty", {"a": 1}),
    trap("empty message as another kind", "Empty", [], 5, "x"),
    trap("any without a type", "Any", {"number": 1}, {"@type": ""}, {"value": {}}),
    trap("any of an unknown type", "Any", {"@type": "type.googleapis.com/no.Such"}, {"@type": "type.googleapis.com/no.Such", "value": "AA=="}),
    trap("any with its type behind", "Any", Raw('{"number": 1, "@type": "type.googleapis.com/every.v1.LeafThree"}')),
    trap("any of a type without a slash", "Any", {"@type": "every.v1.LeafThree", "number": 1}, {"@type": "type.googleapis.com/"}),
    trap("any of what has no value", "Any", {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}),
    trap("any of what has nothing", "Any", {"@type": "type.googleapis.com/google.protobuf.Empty"}),
    trap("any of a known type without a value", "Any", {"@type": "type.googleapis.com/google.protobuf.Duration"}),
    trap("any with a mistake", "Any", {"@type": "type.googleapis.com/every.v1.LeafThree", "number": "x"}, {"@type": "type.googleapis.com/every.v1.LeafThree", "nothing": 1}, 5),
    trap("wrapper as an object", ["Int32Value", "StringValue", "BoolValue"], {"value": 1}, {}),
    trap("wrapper of another kind", ["Int64Value", "BytesValue", "BoolValue"], "*", 0.5, []),
    trap("wrapper of null", [f"{w}Value" for w in WRAPPERS], None),
]  # fmt: skip
# The same, of whole messages.
WHOLE = [
    trap("both names of a field", "Three", {"oneInt32": 1, "one_int32": 2}, {"camelCase": 1}, {"with1Digit": 1, "with_1_digit": 2}),
    trap("two of a oneof", "Three", {"choiceInt32": 1, "choiceString": "x"}, {"choice_int32": 1, "choiceInt32": 2}),
    trap("two of a oneof, one of them null", "Three", {"choiceInt32": 1, "choiceString": None}),
    trap("other names", "Three", {"double_Line": 1}, {"doubleLine": 1}, {"double__line": 2}, {"Before": 3}, {"_before": 4}, {"after": 5}, {"after_": 6}, {"UPPERCASE": 7}, {"UPPER_CASE": 8}),
    trap("its own name in JSON", "Three", {"@other name": 1}, {"renamed": 2}, {"Renamed": 3}),
    trap("one value for a list", "Three", {"manyInt32": 1}, {"manyLeaf": {"number": 1}}, {"manyString": "x"}),
    trap("null in a list", "Three", {"manyInt32": [1, None]}, {"manyLeaf": [None]}, {"manyString": [None]}),
    trap("null in a list of values", "Three", {"manyValue": [None, 1]}, {"mapValue": {"a": None}}),
    trap("null for a list or map", "Three", {"manyInt32": None, "mapInt32": None}),
    trap("null for a value", "Three", {"oneValue": None}, {"choiceValue": None}, {"oneNull": None}),
    trap("list for a map", "Three", {"mapInt32": []}, {"mapInt32": [{"key": "a", "value": 1}]}),
    trap("key of another kind", "Three", {"byInt32": {"x": {}}}, {"byBool": {"True": {}}}, {"byUint32": {"-1": {}}}, {"byInt32": {"1.0": {}}}, {"byBool": {"1": {}}}),
    trap("key out of range", "Three", {"byInt32": {"2147483648": {}}}, {"byFixed64": {"18446744073709551616": {}}}),
    trap("the same key twice", "Three", Raw('{"byString": {"a": {}, "a": {"number": 1}}}')),
    trap("the same key in two forms", "Three", {"byInt32": {"1": {}, "01": {}}}, {"byInt32": {"0": {}, "-0": {}}}),
    trap("null as a map's value", "Three", {"byInt32": {"1": None}}, {"mapInt32": {"a": None}}),
    trap("required is missing", "Two", {"needs": {}}),
    trap("required is missing", "Edition", {"needs": {}}),
    trap("required is there", "Two", {"needs": {"here": 0}}),
    trap("required is there", "Edition", {"needs": {"here": 0}}),
    trap("groups", "Two", {"group": {"inside": 1, "deep": ["1", 2]}, "groups": [{"inside": "x"}, {}]}),
    trap("a group by its type", "Two", {"Group": {"inside": 1}}, {"Groups": []}),
    trap("delimited", "Edition", {"delimited": {"number": 1, "more": {"a": {"text": "x"}}}, "manyDelimited": [{}, {"number": 2}]}),
    trap("a closed enum with a number that has no name", "Edition", {"oneClosed": 77}, {"manyClosed": [0, 77]}),
    trap("a closed enum", "Edition", {"oneClosed": 1, "manyClosed": ["CLOSED_ONE", 0]}),
    trap("extensions", "Two", {"[every.v1.extra]": 5}, {"[every.v1.extras]": [{"number": 1}]}),
    trap("an extension that is not", "Two", {"[every.v1.no_such]": 5}, {"every.v1.extra": 5}, {"extra": 5}),
    trap("an empty message", "Three", {}, {"oneLeaf": {}}, {"manyLeaf": [{}], "mapLeaf": {"": {}}}),
    trap("no object", "Three", [], 5, "x", None),
    trap("no JSON", "Three", Raw("{"), Raw('{"oneInt32": 01}'), Raw("{'oneInt32': 1}"), Raw('{"oneInt32": 1,}'), Raw('{"oneFloat": NaN}')),
    trap("space and escapes", "Three", Raw(' \n{"one\\u0049nt32"\t:\r1 } ')),
    trap("more than one value", "Three", Raw("{} {}"), Raw("{}x")),
    trap("byte order mark", "Three", Raw("\ufeff{}")),
    trap("deep", "Three", Raw('{"oneSelf":' * 29 + "{}" + "}" * 29), Raw('{"oneValue":' + "[" * 20 + "]" * 20 + "}")),
    trap("too deep", "Three", Raw('{"oneSelf":' * 5000 + "{}" + "}" * 5000), Raw('{"oneValue":' + "[" * 20000 + "]" * 20000 + "}")),
]  # fmt: skip


def trapped():
    """Each trap with each kind in each place: its name, the message's name, JSON text."""
    for one in TRAPS:
        for kind in one.kinds:
            for name in SYNTAXES if kind == "enum" or one.name in ("null", "negative zero") else ["Three"]:
                called = {"enum": "kind", "Leaf": "leaf"}.get(kind, kind.lower())
                for value in one.values:
                    if kind == "enum" and value in ("ONE", "_one"):
                        value = f"{name.lower()}_one" if value == "_one" else f"{name.title()}_One"
                    text = value if isinstance(value, Raw) else json.dumps(value)
                    yield one.name, name, f'{{"one_{called}": {text}}}'
                    yield one.name, name, f'{{"many_{called}": [{text}]}}'
                    yield one.name, name, f'{{"map_{called}": {{"a": {text}}}}}'
                    yield one.name, name, f'{{"choice_{called}": {text}}}'
    for one in WHOLE:
        (name,) = one.kinds
        for value in one.values:
            yield one.name, name, value if isinstance(value, Raw) else json.dumps(value)
