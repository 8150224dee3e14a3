#!/usr/bin/env bash
# safetensors.numpy.save_file writes a transposed array's values in the wrong places, without an error.
#
# An expert would guess: a transposed or column-ordered array is copied into row order, as numpy.save and tobytes()
#   do, or refused with an error, as safetensors.torch.save_file refuses a non-contiguous tensor.
# What happens: the array's shape is written together with its bytes as they lie in memory. The file is valid, its
#   shape and dtype are right, and its values are in other places: a (2, 3) array loads as another (2, 3) array. The
#   documentation says that tensors need to be contiguous; nothing looks. weights.T is such an array.
# Seen with: safetensors 0.8.0, numpy 2.4.6. save() and save_file() do the same.
# What to do: save {name: numpy.ascontiguousarray(array)}, and see that a test saves an array that is not square.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$folder"

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__, "numpy", np.__version__)
rows = np.arange(6, dtype=np.float32).reshape(2, 3)
columns = np.asfortranarray(rows)  # equal to rows, laid out by columns
if not np.array_equal(rows, columns):
    sys.exit("changed: numpy.asfortranarray changes values")

try:
    save_file({"rows": rows, "columns": columns, "copied": np.ascontiguousarray(columns)}, "arrays.safetensors")
except Exception as error:
    sys.exit(f"changed: save_file refuses a column-ordered array with {type(error).__name__}")
loaded = load_file("arrays.safetensors")

for name, array in loaded.items():
    print(f"{name}: saved {rows.tolist()}, loaded {array.tolist()}, shape {array.shape}")
if not np.array_equal(loaded["rows"], rows) or not np.array_equal(loaded["copied"], rows):
    sys.exit("changed: a row-ordered array does not load as it was saved")
if np.array_equal(loaded["columns"], rows):
    sys.exit("changed: a column-ordered array now loads as it was saved")
if loaded["columns"].tolist() != [[0, 3, 1], [4, 2, 5]]:
    sys.exit("changed: a column-ordered array is no longer written in memory order")
print("as described")
PYTHON
