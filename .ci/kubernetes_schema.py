"""Objects against the schemas of a Kubernetes version, strictly: unknown fields too.

The schemas of Kubernetes itself come with kubernetes-validate; those of custom resources
out of CustomResourceDefinitions, to which strictness is added.
"""

import copy
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml


class Schemas:
    def __init__(self, version: str, definitions: Path):
        self.version, self.custom = version, {}
        for file in definitions.glob("*.yaml"):
            spec = yaml.safe_load(file.read_text())["spec"]
            for v in spec["versions"]:
                key = f"{spec['group']}/{v['name']}", spec["names"]["kind"]
                self.custom[key] = _strict(v["schema"]["openAPIV3Schema"])

    def problems(self, o: dict) -> list[str]:
        schema = self.custom.get((o["apiVersion"], o["kind"]))
        try:
            if schema:
                # The API server has its own opinion about metadata.
                jsonschema.validate({**o, "metadata": {}}, schema)
            else:
                used = kubernetes_validate.validate(o, self.version, strict=True)
                if not self.version.startswith(used):
                    return [f"validated against {used}, not {self.version}"]
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            where = ".".join(str(p) for p in error.absolute_path)
            return [f"{where}: {error.message}"]
        except kubernetes_validate.SchemaNotFoundError:
            return [f"there is no schema for {o['apiVersion']} {o['kind']}"]
        return []


def _strict(schema: dict) -> dict:
    schema = copy.deepcopy(schema)
    _close(schema)
    return schema


def _close(schema) -> None:
    if isinstance(schema, list):
        for s in schema:
            _close(s)
    elif isinstance(schema, dict):
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("type", None)
            schema.pop("anyOf", None)
        if isinstance(pattern := schema.get("pattern"), str) and "(?i)" in pattern:
            # Go takes it anywhere, Python in front only.
            schema["pattern"] = "(?i)" + pattern.replace("(?i)", "")
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        if isinstance(schema.get("properties"), dict) and not open_ended:
            schema.setdefault("additionalProperties", False)
        for s in schema.values():
            _close(s)


def main(version: str, definitions: str, file: str) -> None:
    schemas = Schemas(version, Path(definitions))
    objects = [o for o in yaml.safe_load_all(Path(file).read_text()) if o]
    if found := [p for o in objects for p in schemas.problems(o)]:
        sys.exit("\n".join(found))
    print(f"{len(objects)} objects are as the schemas say")


if __name__ == "__main__":
    main(*sys.argv[1:])
