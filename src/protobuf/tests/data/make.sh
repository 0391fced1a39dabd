#!/usr/bin/env bash
# Makes the descriptor sets of this directory, which protox can't: it knows no editions.
# Needs the protoc of PyPI: pip install grpcio-tools==1.85.1 (libprotoc 35.1).
set -euo pipefail
cd "$(dirname "$0")"
for edition in 2023 2024; do
  work=$(mktemp -d)
  sed "s/EDITION/$edition/" editions.proto.in >"$work/editions.proto"
  python3 -m grpc_tools.protoc -I "$work" --include_imports -o "editions$edition.binpb" "$work/editions.proto"
  rm -r "$work"
done
