#!/usr/bin/env bash
# huggingface_hub's ModelCardData: results of two tasks on one data set end up under the first task's name.
#
# A guess: two EvalResult entries with other `task_name`s ("text to image retrieval", "image to text retrieval") become two
# results of the card's model-index, as they went in.
# What happens: the entries are grouped by task type and data set alone. The second task's metrics stand in the first
# task's result, and its name is gone, without a warning. Reading the card back gives both figures the first name.
# Seen with huggingface_hub 2.4.0.
# What to do: write the model-index yourself, one result per task, and let ModelCard read it back as a check.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
"$work/venv/bin/python" - <<'PYTHON'
import sys

import huggingface_hub
from huggingface_hub import EvalResult, ModelCard, ModelCardData

NAMES = ("text to image retrieval", "image to text retrieval")
figures = {name: value for name, value in zip(NAMES, (0.25, 0.75))}
shared = {"task_type": "image-text-retrieval", "dataset_type": "org/set", "dataset_name": "set", "metric_type": "recall_at_1"}
data = ModelCardData(
    language="tr",
    license="apache-2.0",
    model_name="a model",
    eval_results=[EvalResult(task_name=name, metric_value=value, **shared) for name, value in figures.items()],
)
written = f"---\n{data.to_yaml()}\n---\n\n# a model\n"
read = {(found.task_name, found.metric_value) for found in data.eval_results}
back = {(found.task_name, found.metric_value) for found in ModelCard(written).data.eval_results}

# The control: the same two results, written as two entries of the model-index, are read with both names.
ENTRY = "  - task: {{type: image-text-retrieval, name: {name}}}\n    dataset: {{type: org/set, name: set}}\n    metrics: [{{type: recall_at_1, value: {value}}}]\n"
entries = "".join(ENTRY.format(name=name, value=value) for name, value in figures.items())
by_hand = ModelCard(f"---\nlicense: apache-2.0\nmodel-index:\n- name: a model\n  results:\n{entries}---\n")
control = {(found.task_name, found.metric_value) for found in by_hand.data.eval_results}

print(f"huggingface_hub {huggingface_hub.__version__}")
print(f"given:              {sorted(read)}")
print(f"read back:          {sorted(back)}")
print(f"written by hand:    {sorted(control)}")
if read != set(figures.items()) or control != set(figures.items()):
    sys.exit("changed: the entries themselves, or a hand-written model-index, no longer keep both names")
if back != {(NAMES[0], value) for value in figures.values()}:
    sys.exit("changed: a card with results of two tasks on one data set is read back otherwise")
print("as described")
PYTHON
