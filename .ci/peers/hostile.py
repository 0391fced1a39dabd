"""Services that lie about themselves: by reflection they are endless, circular, huge, incomplete,
nonsense, slow. Each must harm only its own tools."""

import contextlib
import re
import socket
import threading
import time

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.internal import encoder
from grpc_reflection.v1alpha import reflection_pb2

from methods import called, python_server, source
from rig import LIMIT, Fanfare, Load, Rig, calls, free_ports, same, wait_for

Answer = reflection_pb2.ServerReflectionResponse
KINDS = descriptor_pb2.FieldDescriptorProto
REFLECTION = "grpc.reflection.v1.ServerReflection"
LOG, LEFT_OUT, FAILURES = "log", "fanfare_tool_service_left_out_tools", "fanfare_tool_service_refresh_failures_total"
# MiB that all lies together may cost.
MEMORY = 200


def file(name: str = "a.proto", package: str = "lie", imports=(), **messages: dict) -> descriptor_pb2.FileDescriptorProto:
    """A file with messages: each a dict of its fields' names and types, where `.lie.X` is a message."""
    result = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)
    for called_, fields in messages.items():
        message = result.message_type.add(name=called_)
        for number, (field, kind) in enumerate(fields.items(), 1):
            added = message.field.add(name=field, number=number, label=KINDS.LABEL_OPTIONAL)
            if isinstance(kind, str):
                added.type, added.type_name = KINDS.TYPE_MESSAGE, kind
            else:
                added.type = kind
    return result


def with_service(result: descriptor_pb2.FileDescriptorProto, **methods: str) -> descriptor_pb2.FileDescriptorProto:
    """The same with `lie.S`: each method takes and gives such a message."""
    service = result.service.add(name="S")
    for called_, kind in methods.items():
        service.method.add(name=called_, input_type=kind, output_type=kind)
    return result


TEXT = {"text": KINDS.TYPE_STRING}


class Lie:
    """A service with these files, as far as it says; what is called echoes."""

    def __init__(self, *files, tools=(), services=("lie.S",), said=""):
        self.files = {file.name: file for file in files}
        # The tools that must be there all the same; where it is said what is wrong: the log, or a
        # metric, too.
        self.tools, self.services, self.said = set(tools), services, said
        self.streams, self.methods = 0, {"Good": lambda wire, _: wire}

    def add_to(self, server) -> None:
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream, reflection_pb2.ServerReflectionRequest.FromString, lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString()
        )
        methods = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in self.methods.items()}
        server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": handler}),
            grpc.method_handlers_generic_handler("lie.S", methods),
        ))  # fmt: skip

    def stream(self, requests, context):
        self.streams += 1
        for asked in requests:
            yield from self.answers(asked)

    def answers(self, asked):
        """To one request."""
        answer = Answer(valid_host=asked.host, original_request=asked)
        match asked.WhichOneof("message_request"):
            case "list_services":
                for name in self.services:
                    answer.list_services_response.service.add(name=name)
            case "file_containing_symbol":
                found = self.containing(asked.file_containing_symbol)
                self.give(answer, found)
            case "file_by_filename":
                self.give(answer, self.named(asked.file_by_filename))
            case _:
                self.give(answer, None)
        yield answer

    def give(self, answer, found) -> None:
        if found is None:
            answer.error_response.error_code, answer.error_response.error_message = 5, "not found"
        else:
            answer.file_descriptor_response.file_descriptor_proto.append(found if isinstance(found, bytes) else found.SerializeToString())

    def named(self, name: str):
        return self.files.get(name)

    def containing(self, symbol: str):
        for found in self.files.values():
            names = [m.name for m in found.message_type] + [s.name for s in found.service]
            if symbol in [f"{found.package}.{name}" for name in names]:
                return found


class Endless(Lie):
    """Each file imports another one."""

    def named(self, name: str):
        number = int(name.removesuffix(".proto").rsplit("-", 1)[1])
        return file(name, f"lie{number}", [f"next-{number + 1}.proto"], X=TEXT)


class Hangs(Lie):
    """The stream is open, and nothing comes."""

    def answers(self, asked):
        time.sleep(LIMIT)
        return ()


class Ends(Lie):
    """The stream ends before anything comes."""

    def stream(self, requests, context):
        return iter(())


class Fails(Lie):
    def stream(self, requests, context):
        context.abort(grpc.StatusCode.INTERNAL, "x" * 2000)


class Floods(Lie):
    """Answers without end to one question."""

    def stream(self, requests, context):
        answer = Answer()
        answer.list_services_response.service.add(name="lie.S" + "x" * 1000)
        for _ in range(10**7):
            if not context.is_active():
                return
            yield answer


class Drips(Lie):
    """Each answer takes a second, and names another file."""

    def answers(self, asked):
        time.sleep(1)
        return super().answers(asked)

    def named(self, name: str):
        return Endless.named(self, name)


class Large(Lie):
    """One answer of 64 MiB."""

    def answers(self, asked):
        answer = Answer()
        answer.error_response.error_message = "x" * (64 << 20)
        yield answer


class Names(Lie):
    """More services than anybody has, with long names."""

    def answers(self, asked):
        answer = Answer()
        for number in range(30_000):
            answer.list_services_response.service.add(name=f"lie.{'x' * 100}{number}")
        yield answer


class Other(Lie):
    """Answers to what was not asked."""

    def answers(self, asked):
        answer = Answer()
        answer.all_extension_numbers_response.base_type_name = "lie.X"
        yield answer


class Garbage(Lie):
    """Bytes that are no answer."""

    def answers(self, asked):
        yield b"\xff" * 100


class GarbageFiles(Lie):
    """Answers whose files are none."""

    def containing(self, symbol: str):
        return b"\xff\x00\x07 no descriptor"


class Changes(Lie):
    """Each stream tells of another build."""

    def containing(self, symbol: str):
        kind = [KINDS.TYPE_STRING, KINDS.TYPE_INT32, KINDS.TYPE_BYTES][self.streams % 3]
        return with_service(file(X={"text": kind, f"f{self.streams}": kind}), Good=".lie.X")


class Nested(Lie):
    """Messages in messages, 5000 levels deep."""

    def containing(self, symbol: str):
        message = b"\x0a\x01N"
        for _ in range(5000):
            message = b"\x0a\x01N\x1a" + encoder._VarintBytes(len(message)) + message
        return GOOD.SerializeToString() + b"\x22" + encoder._VarintBytes(len(message)) + message


def numbers() -> descriptor_pb2.FileDescriptorProto:
    result = with_service(file(X=TEXT, Y=TEXT), Good=".lie.X", Bad=".lie.Y")
    result.message_type[1].field.add(name="again", number=1, type=KINDS.TYPE_INT32, label=KINDS.LABEL_OPTIONAL)
    result.message_type[1].field.add(name="zero", number=0, type=KINDS.TYPE_INT32, label=KINDS.LABEL_OPTIONAL)
    result.message_type[1].field.add(name="minus", number=-5, type=KINDS.TYPE_INT32, label=KINDS.LABEL_OPTIONAL)
    return result


def enum_as_message() -> descriptor_pb2.FileDescriptorProto:
    result = with_service(file(X=TEXT, Y={"kind": ".lie.E", "self": ".lie.Y"}), Good=".lie.X", Bad=".lie.Y", Other=".lie.E")
    result.enum_type.add(name="E").value.add(name="ZERO", number=0)
    return result


def bad_map() -> descriptor_pb2.FileDescriptorProto:
    """An entry of a map with neither key nor value."""
    result = with_service(file(X=TEXT, Y={"map": ".lie.Y.Entry"}), Good=".lie.X", Bad=".lie.Y")
    entry = result.message_type[1].nested_type.add(name="Entry")
    entry.options.map_entry = True
    result.message_type[1].field[0].label = KINDS.LABEL_REPEATED
    return result


def wide(fields: int) -> descriptor_pb2.FileDescriptorProto:
    """Two messages, each with so many fields of both."""
    one = {f"f{n}": ".lie.X" if n % 2 else ".lie.Y" for n in range(fields)}
    return with_service(file(X=one, Y=one), Good=".lie.X")


def tower(levels: int) -> descriptor_pb2.FileDescriptorProto:
    """Each message has ten of the next: expanded they are ten to the power of so many."""
    messages = {f"X{level}": {f"f{n}": f".lie.X{level + 1}" for n in range(10)} for level in range(levels)}
    return with_service(file(**messages, **{f"X{levels}": TEXT}), Good=".lie.X0")


GOOD = with_service(file(X=TEXT), Good=".lie.X")
LONG = "x" * 100_000
MISSING = with_service(file(imports=["gone.proto"], X=TEXT, Y={"gone": ".gone.Z"}), Good=".lie.X", Bad=".lie.Y")
ENDLESS = with_service(file("next-0.proto", imports=["next-1.proto"], X={"y": ".lie9.Y"}), Bad=".lie.X")
LIES = {
    # Odd, but nothing is wrong with them.
    "cycle": Lie(with_service(file(imports=["b.proto"], X={"y": ".lie.Y"}), Good=".lie.X"), file("b.proto", imports=["a.proto"], Y={"x": ".lie.X"}), tools=["good"]),
    "itself": Lie(with_service(file(imports=["a.proto"], X={"x": ".lie.X"}), Good=".lie.X"), tools=["good"]),
    "tower": Lie(tower(60), tools=["good"]),
    "wide": Lie(wide(300), tools=["good"]),
    "changes": Changes(tools=["good"]),
    # Some of it can't be used.
    "placeholder": Lie(MISSING, descriptor_pb2.FileDescriptorProto(name="gone.proto"), tools=["good"], said=LEFT_OUT),
    "missing": Lie(MISSING, tools=["good"], said=LEFT_OUT),
    "enum_as_message": Lie(enum_as_message(), tools=["good"], said=LEFT_OUT),
    "numbers": Lie(numbers(), tools=["good"], said=LEFT_OUT),
    "bad_map": Lie(bad_map(), tools=["good"], said=LEFT_OUT),
    "no_type": Lie(with_service(file(X=TEXT), Good=".lie.X", Bad="", Other="."), tools=["good"], said=LEFT_OUT),
    "same_name": Lie(with_service(file(X=TEXT), Good=".lie.X", Get=".lie.X", get=".lie.X"), tools=["good"], said=LEFT_OUT),
    "long_method": Lie(with_service(file(X=TEXT), **{"Good": ".lie.X", LONG: ".lie.X"}), tools=["good"], said=LOG),
    # Nothing of it can.
    "endless": Endless(ENDLESS, said=LEFT_OUT),
    "nested": Nested(said=LOG), "garbage_files": GarbageFiles(said=LOG),
    "hangs": Hangs(said=FAILURES), "ends": Ends(said=FAILURES), "fails": Fails(said=FAILURES), "large": Large(said=FAILURES),
    "names": Names(said=FAILURES), "drips": Drips(ENDLESS, said=FAILURES), "garbage": Garbage(said=FAILURES),
    # There is nothing, as far as can be seen.
    "floods": Floods(), "other": Other(), "no_such_service": Lie(GOOD, services=["lie.T"]), "long_service": Lie(GOOD, services=["lie." + LONG]),
}  # fmt: skip


def lies(rig: Rig, peer: str) -> None:
    """All at once beside a good service: it works all the time, and of the others what can be used."""
    with contextlib.ExitStack() as servers:
        sources = source(servers.enter_context(python_server(Lie(GOOD).add_to)), 'prefix = "honest_"', name="honest")
        for name, lie in LIES.items():
            port = servers.enter_context(python_server(lie.add_to))
            sources += source(port, f'prefix = "{name}_"', 'refresh_interval = "1s"', name=name)
        for name, serve in ("closed", None), ("silent", lambda _: None), ("chatty", lambda peer: peer.sendall(b"220 hello\r\n" * 1000)):
            sources += source(servers.enter_context(other_server(serve)), f'prefix = "{name}_"', name=name)
        fanfare = rig.serve(sources)
        wanted = {"honest_good"} | {f"{name}_{tool}" for name, lie in LIES.items() for tool in lie.tools}
        wait_for("honest tool", lambda: "honest_good" in fanfare.tools())
        with Load(fanfare, 2, calls("honest_good", text="x"), pause=0.02) as load:
            wait_for("tools", lambda: wanted <= set(fanfare.tools()))
            for name, lie in LIES.items():
                if lie.said:
                    said(fanfare, name, lie.said)
            # Refreshed some times.
            time.sleep(4)
            for tool in wanted - {"honest_good"}:
                same(tool, called(fanfare, tool), {})
            # As models would get them, too.
            for format in range(1, 6):
                same("listed", set(fanfare.tools(format=format)), wanted)
            assert fanfare.memory("VmHWM") < MEMORY, fanfare.memory("VmHWM")
            assert fanfare.process.poll() is None
        failed, count, why = load.failed()
        assert count > 100 and not failed, (failed, count, why)


def said(fanfare: Fanfare, name: str, metric: str) -> None:
    """Waits until the log, and the metric if it is one, say what is wrong with the service."""
    found = re.compile(rf'^{metric}{{.*"{name}".*}} (\S+)$', re.M)
    if metric != LOG:
        wait_for(f"{metric} of {name}", lambda: any(map(float, found.findall(fanfare.page))))
    warned = lambda log: any('"WARN"' in line and f'"{name}"' in line for line in log.splitlines())
    fanfare.rig.processes.says(fanfare.name, warned)


@contextlib.contextmanager
def other_server(serve):
    """A port that nobody serves, or where something other than gRPC does."""
    if serve is None:
        yield free_ports(1)[0]
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    serve(held[-1])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        for peer in held:
            peer.close()


SCENARIOS = [(lies, ["python"], {})]
