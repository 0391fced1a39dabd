#!/usr/bin/env python3
"""Makes bare pods out of the pod templates of renderings: into the folder (first argument),
a file each. Pod security is decided on pods; a Deployment that breaks it is only warned of.
"""

import sys
from pathlib import Path

import yaml
from kubernetes_objects import load, of_kind


def main() -> None:
    folder, *renderings = map(Path, sys.argv[1:])
    for file in renderings:
        objects = load(file)
        pods = [o for o in of_kind(objects, "Pod")]
        for deployment in of_kind(objects, "Deployment"):
            name = deployment["metadata"]["name"]
            template = deployment["spec"]["template"]
            metadata = {"name": name, "labels": template["metadata"]["labels"]}
            pods.append(
                {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            )
        for pod in pods:
            pod["metadata"].pop("namespace", None)
            # One that is there.
            pod["spec"]["serviceAccountName"] = "fanfare"
            target = folder / f"{file.stem}-{pod['metadata']['name']}.yaml"
            target.write_text(yaml.safe_dump(pod))


if __name__ == "__main__":
    main()
